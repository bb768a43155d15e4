//! ListContainers: from memory alone.

use std::{collections::HashMap, sync::Arc};

use super::{Container, ContainerRecord, record::Stage};
use crate::node::{Node, labels::has_labels};

/// Which containers to list; what is not set does not restrict.
#[derive(Debug, Default)]
pub struct Filter {
    /// An id, or its beginning.
    pub id: String,
    /// A pod sandbox's id, or its beginning.
    pub sandbox: String,
    /// The stage.
    pub stage: Option<Stage>,
    /// Labels that must all be there.
    pub labels: HashMap<String, String>,
}

impl Filter {
    /// Whether a container is to be listed.
    pub fn admits(&self, record: &ContainerRecord) -> bool {
        record.id.as_str().starts_with(&self.id)
            && record.sandbox.as_str().starts_with(&self.sandbox)
            && self.stage.is_none_or(|stage| stage == record.stage())
            && has_labels(&record.config.labels, &self.labels)
    }
}

/// The containers that the filter admits.
pub fn list(node: &Node, filter: &Filter) -> Vec<Arc<Container>> {
    let mut containers = node.containers.all();
    containers.retain(|container| container.record.with(|record| filter.admits(record)));
    containers
}
