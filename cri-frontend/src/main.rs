//! a3s-box's CRI frontend: Kubernetes' pods, each in its own MicroVM, which its shim owns.

mod cli;
mod clock;
mod container;
mod error;
mod events;
mod grpc;
mod metrics;
mod node;
mod sandbox;
mod shim;
mod state;
mod stats;
mod streaming;
mod undo;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
