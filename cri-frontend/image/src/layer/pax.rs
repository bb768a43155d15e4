//! What an entry's header and its PAX records say together.

use tar::Header;

use super::{LayerError, emit::Attributes, limits::MAX_NAME, reader::Entry, sparse::SparseRecords};

const XATTR: &[u8] = b"SCHILY.xattr.";
/// Extended attributes that mean something to our own overlay, never to an image.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// containerd's bound: what nanoseconds since 1970 in 63 bits can say.
const LAST_SECOND: u64 = 9_223_372_036;

/// A PAX record: key and value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Splits a PAX header into its records: `length key=value\n`, where only the length says where one ends.
pub(super) fn parse(mut data: &[u8]) -> Result<Vec<Record>, LayerError> {
    let bad = || LayerError::entry(b"", "a PAX header is malformed");
    let mut records = Vec::new();
    while !data.is_empty() {
        let digits = data.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length =
            number(&data[..digits]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
        let record = data.get(digits + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(records)
}

/// The last value of a key; an empty one counts as none, as in Go's reader.
pub(super) fn find<'a>(records: &'a [Record], key: &[u8]) -> Option<&'a [u8]> {
    let (_, value) = records.iter().rfind(|(known, _)| known == key)?;
    (!value.is_empty()).then_some(value)
}

/// A plain decimal number: no sign, no spaces.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Mode, owner, times and extended attributes of an entry, and what it says about a sparse file. An attribute's value has
/// `xattr_bytes` at most.
pub(super) fn attributes(
    entry: &Entry,
    xattr_bytes: usize,
) -> Result<(Attributes, SparseRecords), LayerError> {
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
    fn a_value_may_hold_newlines_and_equal_signs() {
        let records = parse(b"16 path=a\nb=c/d\n11 size=123\n");
        assert!(records.is_err(), "a wrong length is found");
        let records = parse(b"16 path=a\nb=c/d\n12 size=123\n").unwrap();
        assert_eq!(find(&records, b"path"), Some(b"a\nb=c/d".as_slice()));
        assert_eq!(find(&records, b"size"), Some(b"123".as_slice()));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "x",
            "5 a=b",
            "99 a=b\n",
            "0 a=b\n",
            "3 a=b\n",
            "-6 a=b\n",
            "6 ab c\n",
            "18446744073709551615 a=b\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

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
