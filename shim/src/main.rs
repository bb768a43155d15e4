//! The shim: runs one pod's MicroVM, and speaks containerd's shim protocol (Sandbox v1, Task v3) and our own Control
//! service on one socket. It is installed a second time as `containerd-shim-a3sbox-v2`.

mod agent;
mod bootstrap;
mod caller;
mod cgroup;
mod device;
mod error;
mod io;
mod network;
mod pod;
mod rootfs;
mod service;
mod sys;
mod vm;
mod volume;

use std::process::ExitCode;

use bootstrap::{Arguments, delete, info, serve, start};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a3s-box-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    match arguments.action.as_str() {
        "info" => info::run()?,
        "version" => println!("a3s-box-shim {}", env!("CARGO_PKG_VERSION")),
        "start" => start::run(&arguments, &bootstrap::config()?)?,
        "delete" => delete::run(&arguments, &bootstrap::config()?)?,
        "serve" => serve::run(&arguments, bootstrap::config()?)?,
        other => return Err(format!("unknown action {other:?}: start, delete and -info are known").into()),
    }
    Ok(())
}
