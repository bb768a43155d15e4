//! A caller's deadline, the header `grpc-timeout`. tonic would answer a call that takes longer with CANCELLED, which says that
//! the caller has gone; kubelet and critest ask for DEADLINE_EXCEEDED.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, Request, Response},
    },
    server::NamedService,
};

const HEADER: &str = "grpc-timeout";
/// More is no timeout by gRPC's specification.
const MOST_DIGITS: usize = 8;
/// So much before tonic's own timer, at most: a busy machine may do something else between the settings of the two, and
/// of two that fall on one of the runtime's milliseconds either may be told first.
const EARLIER: Duration = Duration::from_millis(20);

/// A service that answers in time.
#[derive(Debug, Clone)]
pub struct InTime<S>(pub S);

impl<S: NamedService> NamedService for InTime<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for InTime<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let patience = patience(request.headers());
        let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let answer = self.0.call(request);
        let Some(patience) = patience else { return Box::pin(answer) };
        let answer = timeout(patience - EARLIER.min(patience / 4), answer);
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                let reason = format!("{call} was not done within the caller's {patience:?}");
                Ok(Status::deadline_exceeded(reason).into_http())
            })
        })
    }
}

/// How long the caller waits; what is malformed says nothing.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > MOST_DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http_body_util::Empty;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{
        net::{UnixListener, UnixStream},
        task::JoinSet,
    };
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Code, codegen::Bytes, transport::Server};

    use super::*;

    /// A service that never answers.
    #[derive(Clone)]
    struct Never;

    impl Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            pending()
        }
    }

    impl NamedService for Never {
        const NAME: &'static str = "runtime.v1.RuntimeService";
    }

    /// Over a connection, where tonic's timer runs too, at whatever moment the time is up.
    #[tokio::test]
    async fn a_client_is_told_before_tonic_tells_it_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let connections = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            Server::builder().add_service(InTime(Never)).serve_with_incoming(connections).await.unwrap();
        });
        let connection = TokioIo::new(UnixStream::connect(&path).await.unwrap());
        let (client, connection) = http2::handshake(TokioExecutor::new(), connection).await.unwrap();
        tasks.spawn(async move { connection.await.unwrap() });
        let mut calls = JoinSet::new();
        for n in 0..100 {
            let mut client = client.clone();
            let request = Request::post("http://localhost/runtime.v1.RuntimeService/Status")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header(HEADER, format!("{}u", 100_000 + 437 * n))
                .body(Empty::<Bytes>::new())
                .unwrap();
            calls.spawn(async move {
                let answer = client.send_request(request).await.unwrap();
                Status::from_header_map(answer.headers()).unwrap()
            });
        }
        while let Some(status) = calls.join_next().await {
            let status = status.unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
    }

    #[test]
    fn a_timeout_has_a_number_and_a_unit() {
        let patience =
            |text: &str| patience(&HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]));
        assert_eq!(patience("2S"), Some(Duration::from_secs(2)));
        assert_eq!(patience("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(patience("1500m"), Some(Duration::from_millis(1500)));
        for malformed in ["", "S", "2", "2s", "-2S", "123456789n", "2 S"] {
            assert_eq!(patience(malformed), None, "{malformed:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_so() {
        let request = Request::builder().uri("/runtime.v1.RuntimeService/Status").header(HEADER, "5m");
        let answer = InTime(Never).call(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("Status") && status.message().contains("5ms"), "{status}");
    }
}
