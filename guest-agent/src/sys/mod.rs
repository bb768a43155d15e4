//! System calls that neither std nor nix wraps: all of this crate's unsafe code, one file a kind.

pub mod device;
pub mod mount;
pub mod process;
pub mod quota;
pub mod socket;
pub mod text;
pub mod time;
pub mod trim;
pub mod tty;
pub mod watch;
