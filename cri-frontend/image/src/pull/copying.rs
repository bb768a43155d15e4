//! Keeps what passes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use crate::{
    digest::Digest,
    layer::LayerError,
    store::{KeptBlob, Workspace},
};

/// A reader whose bytes also go to a file.
pub(super) struct Copying<R> {
    inner: R,
    file: File,
    path: PathBuf,
    workspace: Workspace,
}

fn failed(step: &'static str, path: &std::path::Path) -> impl Fn(io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Store { step, path: path.clone(), source }
}

impl<R> Copying<R> {
    /// Copies to a new file in a workspace.
    pub(super) fn new(inner: R, workspace: Workspace) -> Result<Self, LayerError> {
        let path = KeptBlob::file(&workspace);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed("make", &path))?;
        Ok(Self { inner, file, path, workspace })
    }

    /// The copy of what was read, which is known to be whole.
    pub(super) fn finish(self, digest: Digest) -> Result<KeptBlob, LayerError> {
        let Self { file, path, workspace, .. } = self;
        file.sync_all().map_err(failed("sync", &path))?;
        Ok(KeptBlob { digest, workspace })
    }
}

impl<R: Read> Read for Copying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let copied = self.file.write_all(&buffer[..read]);
        copied.map_err(|error| failed("write", &self.path)(error).into_io())?;
        Ok(read)
    }
}
