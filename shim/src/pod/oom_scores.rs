//! The pod's processes on the host hold the memory of all its containers: the host's kernel is to spare them as it would
//! spare the container that it would kill last. In the guest each container has its own score.

use std::collections::BTreeMap;

use a3s_box_proto::ids::ContainerId;
use tracing::warn;

use super::sandbox::Sandbox;
use crate::sys::thread::blocking;

/// Each container's score.
#[derive(Debug, Default)]
pub struct OomScores(BTreeMap<ContainerId, i32>);

impl OomScores {
    fn of_pod(&self) -> i32 {
        self.0.values().min().copied().unwrap_or_default()
    }
}

impl Sandbox {
    /// Takes a container's score into account, or (none) no longer. Where the kernel refuses, the pod runs with the score
    /// that it has.
    pub async fn weigh(&self, id: &ContainerId, score: Option<i32>) {
        let mut scores = self.oom_scores.lock().await;
        match score {
            Some(score) => scores.0.insert(id.clone(), score),
            None => scores.0.remove(id),
        };
        self.apply_oom_score(scores.of_pod()).await;
    }

    /// Gives a pod without containers the usual score, instead of the shim's.
    pub async fn weigh_nothing(&self) {
        self.apply_oom_score(OomScores::default().of_pod()).await;
    }

    async fn apply_oom_score(&self, score: i32) {
        let cgroup = self.cgroup.clone();
        if let Err(error) = blocking(move || cgroup.set_oom_score_adj(score)).await {
            warn!(score, %error, "oom_score_adj of the pod's processes stays as it was");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_spared_as_its_most_spared_container() {
        let scores = |all: &[i32]| {
            let ids = (0..).map(|number| format!("c{number}").parse().unwrap());
            OomScores(ids.zip(all.iter().copied()).collect()).of_pod()
        };
        assert_eq!((scores(&[]), scores(&[1000, 500, 700]), scores(&[-997, 1000])), (0, 500, -997));
    }
}
