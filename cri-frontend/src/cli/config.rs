//! `config`: the configuration file.

use std::{path::PathBuf, process::ExitCode};

use a3s_box_proto::config::{DEFAULT_PATH, DEFAULT_TEXT};
use clap::Subcommand;

use super::{Configured, Failure};

/// What to do about the configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every key with its default and its meaning.
    Default,
    /// Say whether a file is good, or which key is not.
    Check {
        /// The file.
        #[arg(value_name = "PATH", default_value = DEFAULT_PATH)]
        path: PathBuf,
    },
}

/// Runs the command.
pub fn config(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Default => print!("{DEFAULT_TEXT}"),
        Command::Check { path } => {
            Configured { config: path.clone() }.load()?;
            println!("{} is good", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
