//! ListPodSandbox: from memory alone.

use std::{collections::HashMap, sync::Arc};

use super::{Sandbox, SandboxRecord};
use crate::node::{Node, labels::has_labels};

/// Which sandboxes to list; what is not set does not restrict.
#[derive(Debug, Default)]
pub struct Filter {
    /// An id, or its beginning.
    pub id: String,
    /// Ready, or not ready.
    pub ready: Option<bool>,
    /// Labels that must all be there.
    pub labels: HashMap<String, String>,
}

impl Filter {
    /// Whether a sandbox is to be listed.
    pub fn admits(&self, record: &SandboxRecord) -> bool {
        record.is_listed()
            && record.id.as_str().starts_with(&self.id)
            && self.ready.is_none_or(|ready| ready == record.is_ready())
            && has_labels(&record.config.labels, &self.labels)
    }
}

/// The sandboxes that the filter admits.
pub fn list(node: &Node, filter: &Filter) -> Vec<Arc<Sandbox>> {
    let mut sandboxes = node.sandboxes.all();
    sandboxes.retain(|sandbox| sandbox.record.with(|record| filter.admits(record)));
    sandboxes
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::PodSandboxConfig;

    use super::{super::Phase, *};

    fn record(id: &str, phase: Phase, labels: &[(&str, &str)]) -> SandboxRecord {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        SandboxRecord {
            id: id.parse().unwrap(),
            config: Arc::new(PodSandboxConfig { labels, ..Default::default() }),
            handler: String::new(),
            created_at: 0,
            boot_id: String::new(),
            network: super::super::NetworkMode::None,
            ips: Vec::new(),
            phase,
        }
    }

    #[test]
    fn filters_restrict_by_all_that_is_set() {
        let ready = record("abc1", Phase::Ready, &[("app", "web"), ("tier", "front")]);
        let stopped = record("abd2", Phase::Stopped, &[("app", "web")]);
        let all = Filter::default();
        assert!(all.admits(&ready) && all.admits(&stopped));
        let prefix = Filter { id: "abc".into(), ..Filter::default() };
        assert!(prefix.admits(&ready) && !prefix.admits(&stopped));
        let not_ready = Filter { ready: Some(false), ..Filter::default() };
        assert!(!not_ready.admits(&ready) && not_ready.admits(&stopped));
        let labels =
            HashMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())]);
        let labelled = Filter { labels, ..Filter::default() };
        assert!(labelled.admits(&ready) && !labelled.admits(&stopped));
    }

    #[test]
    fn a_sandbox_in_the_making_is_not_listed() {
        assert!(!Filter::default().admits(&record("a", Phase::Creating, &[])));
    }
}
