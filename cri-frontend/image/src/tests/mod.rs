//! The store against a registry that does as it is told, also what no registry should.

mod fixture;
mod hostile;
mod login;
mod server;
mod store;
