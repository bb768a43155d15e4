//! What a MicroVM is given: how each device's other end is started on the host. No VMM in here.

pub mod disk;
pub mod nic;
pub mod virtiofs;
pub mod vsock;
