//! The services on the shim's socket: decode, call the pod, encode.

pub mod control;
mod metrics;
pub mod sandbox;
pub mod task;

use std::time::SystemTime;

use protobuf::{MessageField, well_known_types::timestamp::Timestamp};

use crate::error::{Error, Result};

/// Runs work to its end although the caller may go: what was begun must not stop in the middle.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> ttrpc::Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            Err(Error::Host { step: "running the call".into(), source: std::io::Error::other(error) }.into())
        }
    }
}

fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    MessageField::some(time.into())
}
