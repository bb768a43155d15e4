//! Long lists as streams of messages.

use prost::Message;
use tonic::{Status, codegen::BoxStream};

/// A page is sent when its items have so many bytes: small enough for any client, large enough to be few.
const PAGE_BYTES: usize = 512 * 1024;

/// Items in pages, in order. An empty list has none.
pub fn pages<T, P>(items: Vec<T>, page: fn(Vec<T>) -> P) -> BoxStream<P>
where
    T: Message + 'static,
    P: Send + 'static,
{
    let mut items = items.into_iter().peekable();
    let pages = std::iter::from_fn(move || {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(item) = items.next()
        {
            bytes += item.encoded_len();
            taken.push(item);
        }
        (!taken.is_empty()).then(|| Ok::<P, Status>(page(taken)))
    });
    Box::pin(futures::stream::iter(pages))
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::{PodSandbox, StreamPodSandboxesResponse};
    use futures::StreamExt;

    use super::*;

    async fn sizes(items: Vec<PodSandbox>) -> Vec<usize> {
        let page = |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes };
        pages(items, page).map(|page| page.unwrap().pod_sandboxes.len()).collect().await
    }

    #[tokio::test]
    async fn pages_are_bounded_and_nothing_is_left_out() {
        let pod = PodSandbox { id: "x".repeat(PAGE_BYTES / 4), ..Default::default() };
        assert_eq!(sizes(vec![pod.clone(); 9]).await, [4, 4, 1]);
        let huge = PodSandbox { id: "x".repeat(2 * PAGE_BYTES), ..Default::default() };
        assert_eq!(sizes(vec![huge, pod]).await, [1, 1]);
        assert_eq!(sizes(Vec::new()).await, Vec::<usize>::new());
    }
}
