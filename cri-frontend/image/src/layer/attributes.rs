//! Mode, owner, time and extended attributes of an entry: what its header and its PAX records say together.

use tar::Header;

use super::{
    LayerError,
    limits::{MAX_NAME, MAX_XATTRS},
    pax::number,
    reader::Entry,
    sparse::SparseRecords,
};

const XATTR: &[u8] = b"SCHILY.xattr.";
/// Extended attributes that mean something to our own overlay, never to an image.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// containerd's bound: what nanoseconds since 1970 in 63 bits can say.
const LAST_SECOND: u64 = 9_223_372_036;
/// The mode of a directory that no entry tells of.
const UNTOLD_MODE: u32 = 0o755;

/// Mode, owner, time and extended attributes of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Nanoseconds beyond.
    pub nanoseconds: u32,
    /// Names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// A directory's that no entry tells of, as containerd makes it.
    pub(super) fn of_untold_directory() -> Self {
        Self { mode: UNTOLD_MODE, ..Self::default() }
    }

    /// Whether a root directory with these has nothing that a layer above would have to repeat.
    pub(super) fn is_default_root(&self) -> bool {
        (self.mode, self.uid, self.gid) == (UNTOLD_MODE, 0, 0) && self.xattrs.is_empty()
    }

    /// Refuses more extended attributes than anything honest has: each is compared with all others.
    pub(super) fn check_xattrs(&self) -> Result<(), LayerError> {
        if self.xattrs.len() <= MAX_XATTRS {
            return Ok(());
        }
        let what = "the extended attributes of an entry";
        Err(LayerError::Limit { what, limit: MAX_XATTRS as u64, key: "fixed" })
    }
}

/// Mode, owner, times and extended attributes of an entry, and what it says about a sparse file. An attribute's value has
/// `xattr_bytes` at most.
pub(super) fn read(entry: &Entry, xattr_bytes: usize) -> Result<(Attributes, SparseRecords), LayerError> {
    let name = &entry.name;
    let mut attributes = from_header(&entry.header, name)?;
    let mut sparse = SparseRecords::default();
    for (key, value) in &entry.records {
        match key.as_slice() {
            b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"uid" => attributes.uid = id(number(value), name, "owner")?,
            b"gid" => attributes.gid = id(number(value), name, "group")?,
            b"mtime" => set_time(&mut attributes, value, name)?,
            key if key.starts_with(XATTR) => {
                if value.len() > xattr_bytes {
                    let reason = format!(
                        "an extended attribute is larger than {xattr_bytes} bytes (images.max_xattr_bytes)"
                    );
                    return Err(LayerError::entry(name, reason));
                }
                push_xattr(&mut attributes, &key[XATTR.len()..], value, name)?;
            }
            key => sparse.read(key, value, name)?,
        }
    }
    Ok((attributes, sparse))
}

fn id(value: Option<u64>, name: &[u8], what: &str) -> Result<u32, LayerError> {
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| LayerError::entry(name, format!("its {what} is no 32-bit number")))
}

fn from_header(header: &Header, name: &[u8]) -> Result<Attributes, LayerError> {
    let old = header.as_old();
    let read = |field: &[u8], value: std::io::Result<u64>, what: &str| {
        // Go's reader, and so containerd's, takes an empty field for zero.
        if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
            return Ok(0);
        }
        value.map_err(|_| LayerError::entry(name, format!("its {what} is no number")))
    };
    let mode = read(&old.mode, header.mode().map(Into::into), "mode")?;
    let mut attributes = Attributes {
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        uid: id(Some(read(&old.uid, header.uid(), "owner")?), name, "owner")?,
        gid: id(Some(read(&old.gid, header.gid(), "group")?), name, "group")?,
        mtime: read(&old.mtime, header.mtime(), "time")?,
        ..Attributes::default()
    };
    bound_time(&mut attributes);
    Ok(attributes)
}

/// As containerd: a time out of bounds becomes 1970.
fn bound_time(attributes: &mut Attributes) {
    if attributes.mtime >= LAST_SECOND {
        (attributes.mtime, attributes.nanoseconds) = (0, 0);
    }
}

fn set_time(attributes: &mut Attributes, value: &[u8], name: &[u8]) -> Result<(), LayerError> {
    let bad = || LayerError::entry(name, "its mtime is no number");
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let before_1970 = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().map_err(|_| bad())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let digits = fraction.get(..9).unwrap_or(fraction);
    attributes.mtime = if before_1970 { LAST_SECOND } else { seconds.unsigned_abs() };
    attributes.nanoseconds = format!("{digits:0<9}").parse().map_err(|_| bad())?;
    bound_time(attributes);
    Ok(())
}

fn push_xattr(attributes: &mut Attributes, key: &[u8], value: &[u8], name: &[u8]) -> Result<(), LayerError> {
    if key.starts_with(OVERLAY) {
        return Ok(());
    }
    if key.is_empty() || key.len() > MAX_NAME || key.contains(&0) {
        return Err(LayerError::entry(
            name,
            "the name of an extended attribute is empty, too long or has a NUL",
        ));
    }
    attributes.xattrs.retain(|(known, _)| known != key);
    attributes.xattrs.push((key.to_vec(), value.to_vec()));
    attributes.check_xattrs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds_and_stay_in_bounds() {
        let time = |text: &str| {
            let mut attributes = Attributes::default();
            set_time(&mut attributes, text.as_bytes(), b"f")
                .map(|()| (attributes.mtime, attributes.nanoseconds))
        };
        assert_eq!(time("1700000000.5").unwrap(), (1_700_000_000, 500_000_000));
        assert_eq!(time("1.0000000019").unwrap(), (1, 1));
        assert_eq!(time("-5.5").unwrap(), (0, 0));
        assert_eq!(time("99999999999").unwrap(), (0, 0));
        assert!(time("1.x").is_err() && time("").is_err());
    }
}
