//! What the pod may use of the host's processors and memory nodes: the union of what its containers name. The guest has
//! processors of its own, which these are not.

use std::collections::BTreeMap;

use a3s_box_proto::{id_set::IdSet, ids::ContainerId};

use super::sandbox::Sandbox;
use crate::{
    cgroup::{Cgroup, Cpuset},
    error::{Result, Step},
    sys::thread::blocking,
};

/// Each container's set, and what the pod's cgroup was told last.
#[derive(Debug, Default)]
pub struct Cpusets {
    wanted: BTreeMap<ContainerId, Cpuset>,
    applied: Cpuset,
}

impl Cpusets {
    /// A container that names none may run anywhere, and so may the pod then.
    fn union(&self) -> Cpuset {
        let all = |field: fn(&Cpuset) -> Option<&IdSet>| {
            let mut union = IdSet::default();
            for cpuset in self.wanted.values() {
                union.extend(field(cpuset)?);
            }
            (!union.is_empty()).then_some(union)
        };
        Cpuset { cpus: all(|cpuset| cpuset.cpus.as_ref()), mems: all(|cpuset| cpuset.mems.as_ref()) }
    }

    async fn apply(&mut self, cgroup: &Cgroup) -> std::io::Result<()> {
        let union = self.union();
        if union == self.applied {
            return Ok(());
        }
        let (cgroup, wanted) = (cgroup.clone(), union.clone());
        blocking(move || cgroup.keep_to(&wanted)).await?;
        self.applied = union;
        Ok(())
    }
}

impl Sandbox {
    /// Takes a container's set into the pod's; of a known container, what is not named stays as it was.
    ///
    /// # Errors
    /// The host's kernel refuses; then nothing has changed.
    pub async fn allow(&self, id: &ContainerId, named: Cpuset) -> Result<()> {
        let mut cpusets = self.cpusets.lock().await;
        let before = cpusets.wanted.get(id).cloned();
        let known = before.clone().unwrap_or_default();
        let wanted = Cpuset { cpus: named.cpus.or(known.cpus), mems: named.mems.or(known.mems) };
        cpusets.wanted.insert(id.clone(), wanted);
        let applied = cpusets.apply(&self.cgroup).await;
        if applied.is_err() {
            match before {
                Some(before) => cpusets.wanted.insert(id.clone(), before),
                None => cpusets.wanted.remove(id),
            };
        }
        applied.step(|| format!("container {id}: keeping the pod to its processors and memory nodes"))
    }

    /// Takes a container's set out of the pod's.
    pub async fn disallow(&self, id: &ContainerId) {
        let mut cpusets = self.cpusets.lock().await;
        if cpusets.wanted.remove(id).is_some()
            && let Err(error) = cpusets.apply(&self.cgroup).await
        {
            tracing::warn!(container = %id, %error, "the pod's processors stay as they were");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpusets(all: &[(&str, &str)]) -> Cpuset {
        let ids = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let each = all.iter().zip(0..).map(|((cpus, mems), number)| {
            (format!("c{number}").parse().unwrap(), Cpuset { cpus: ids(cpus), mems: ids(mems) })
        });
        Cpusets { wanted: each.collect(), applied: Cpuset::default() }.union()
    }

    #[test]
    fn the_pod_may_use_what_any_of_its_containers_may() {
        let union = cpusets(&[("0-1", "0"), ("4", "")]);
        assert_eq!((union.cpus.unwrap().to_string(), union.mems), ("0-1,4".into(), None));
        assert_eq!(cpusets(&[("0", ""), ("", "")]), Cpuset::default(), "one of them may run anywhere");
        assert_eq!(cpusets(&[]), Cpuset::default());
    }
}
