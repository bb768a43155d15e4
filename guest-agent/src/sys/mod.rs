//! System calls that neither std nor nix nor rustix wraps as they are needed: all that this crate makes itself, one file a kind.

pub mod device;
pub mod entropy;
pub mod mount;
pub mod process;
pub mod quota;
pub mod socket;
pub mod text;
pub mod time;
pub mod trim;
pub mod tty;
pub mod watch;
