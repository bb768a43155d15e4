//! The command line.

mod client;
mod config;
mod follow;
mod images;
mod progress;
mod run;
pub mod serve;

use std::{error::Error, path::PathBuf, process::ExitCode};

use a3s_box_proto::config::{Config, DEFAULT_PATH};
use clap::{Args, Parser, Subcommand};

/// What any command may fail with; it is printed, and nothing decides by it.
type Failure = Box<dyn Error + Send + Sync>;

/// Kubernetes pods in MicroVMs, each in one of its own.
#[derive(Debug, Parser)]
#[command(name = "a3s-box-cri", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Container Runtime Interface on a unix socket.
    Serve(Configured),
    /// Run one container in a pod of its own, through the frontend that serves here.
    Run(run::Arguments),
    /// Show the images that the frontend has and what uses them, or check the files of the image store.
    Images(images::Arguments),
    /// Print the default configuration, or check one.
    #[command(subcommand)]
    Config(config::Command),
}

/// Which configuration a command works with.
#[derive(Debug, Clone, Args)]
struct Configured {
    /// The configuration file. The default one may be absent.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl Configured {
    /// The path, independent of the working directory, and what stands there.
    fn load(&self) -> Result<(PathBuf, Config), Failure> {
        let path = std::path::absolute(&self.config)?;
        let config = Config::load(&path)?;
        Ok((path, config))
    }
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(configured) => serve::serve(&configured),
        Command::Run(arguments) => run::run(arguments),
        Command::Images(arguments) => images::images(&arguments),
        Command::Config(command) => config::config(&command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("a3s-box-cri: {error}");
        ExitCode::FAILURE
    })
}
