//! Layers through the real converter, read back from the file it made.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
};

use tar::{EntryType, Header};

use super::{
    LayerError, Limits,
    convert::{Job, Made, convert},
    output::Outcome,
    resolve::Below,
    stack::Stack,
};
use crate::digest::Digest;

/// The converter that the packaging builds before the tests run.
pub(crate) fn mkfs_erofs() -> PathBuf {
    if let Some(path) = std::env::var_os("A3S_BOX_MKFS_EROFS") {
        return path.into();
    }
    let home = std::env::var_os("HOME").unwrap();
    let cache = Path::new(&home).join(".cache/a3s-box/erofs-utils");
    let versions =
        fs::read_dir(&cache).unwrap_or_else(|error| panic!("{cache:?}: {error}: build the helpers first"));
    let mut found: Vec<_> = versions.map(|entry| entry.unwrap().path().join("mkfs.erofs")).collect();
    found.retain(|path| path.exists());
    found.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    found.pop().unwrap_or_else(|| panic!("no mkfs.erofs in {cache:?}: build the helpers first"))
}

/// The permissions of a layer file's root directory.
pub(crate) fn root_mode(file: &Path) -> u32 {
    let stack = Stack::open([(file, false)].into_iter()).unwrap();
    stack.root().unwrap().unwrap().inode.mode & 0o7777
}

/// A tar stream in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, name: &str, kind: EntryType, change: impl FnOnce(&mut Header), data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(name, EntryType::Regular, |_| {}, data.as_bytes())
    }

    fn dir(self, name: &str, mode: u32, uid: u64) -> Self {
        let change = |header: &mut Header| {
            header.set_mode(mode);
            header.set_uid(uid);
        };
        self.entry(name, EntryType::Directory, change, b"")
    }

    fn link(self, name: &str, kind: EntryType, target: &str) -> Self {
        let change = |header: &mut Header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        };
        self.entry(name, kind, change, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.link(name, EntryType::Symlink, target)
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.link(name, EntryType::Link, target)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry("pax", EntryType::XHeader, |_| {}, &data)
    }

    fn done(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Layers made one above the other.
struct Image {
    directory: tempfile::TempDir,
    layers: Vec<(PathBuf, bool)>,
    limits: Limits,
    inherit_root: bool,
}

struct Ready(Stack);

impl Below for Ready {
    fn stack(&mut self) -> Result<&Stack, LayerError> {
        Ok(&self.0)
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        compressed: 1 << 24,
        unpacked: 1 << 24,
        entries: 1000,
        path_bytes: 4095,
        xattr_bytes: 65_536,
        convert_seconds: 60,
        keep_free: 0,
    }
}

impl Image {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            layers: Vec::new(),
            limits: limits(),
            inherit_root: false,
        }
    }

    fn stack(&self) -> Stack {
        Stack::open(self.layers.iter().map(|(path, hides)| (path.as_path(), *hides))).unwrap()
    }

    fn try_add(&mut self, blob: &[u8], diff_id: Digest) -> Result<Outcome, LayerError> {
        let directory = self.directory.path().join(self.layers.len().to_string());
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let job = Job {
            program: mkfs_erofs(),
            directory,
            limits: self.limits,
            blob: Digest::of(blob),
            diff_id,
            inherit_root: self.inherit_root,
        };
        let Made { file, outcome, .. } = convert(&job, Cursor::new(blob), &mut Ready(self.stack()))?;
        self.layers.push((file, outcome.hides_all_below));
        Ok(outcome)
    }

    fn add(&mut self, tar: Tar) -> Outcome {
        let tar = tar.done();
        self.try_add(&tar, Digest::of(&tar)).unwrap()
    }

    fn refused(&mut self, tar: Tar) -> String {
        let tar = tar.done();
        self.try_add(&tar, Digest::of(&tar)).unwrap_err().to_string()
    }

    /// The merged path's type, mode, owner and content.
    fn show(&self, path: &str) -> String {
        let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        let Some(found) = self.stack().find(&components).unwrap() else { return "nothing".into() };
        let attributes = found.attributes().unwrap();
        let mut text = format!("{:o} {}:{}", found.inode.mode, attributes.uid, attributes.gid);
        if found.inode.is_symlink() {
            write!(text, " -> {}", String::from_utf8(found.target().unwrap()).unwrap()).unwrap();
        } else if found.inode.is_file() {
            let mut content = String::new();
            found.reader().read_to_string(&mut content).unwrap();
            write!(text, " {content:?}").unwrap();
        }
        text
    }

    fn xattrs(&self, path: &str) -> BTreeMap<String, Vec<u8>> {
        let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        let attributes = self.stack().find(&components).unwrap().unwrap().attributes().unwrap();
        attributes.xattrs.into_iter().map(|(name, value)| (String::from_utf8(name).unwrap(), value)).collect()
    }
}

#[test]
fn entries_keep_mode_owner_time_links_and_attributes() {
    let capability = b"\x01\x00\x00\x02\x0a\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut image = Image::new();
    let outcome = image.add(
        Tar::default()
            .dir("./bin/", 0o755, 0)
            .pax(&[("SCHILY.xattr.security.capability", capability), ("mtime", b"1234567890.123456789")])
            .entry("./bin/ping", EntryType::Regular, |header| header.set_mode(0o4755), b"elf")
            .hardlink("bin/ping6", "./bin/ping")
            .symlink("bin/sh", "/bin/busybox")
            .pax(&[("uid", b"4000000000"), ("gid", b"70000")])
            .file("big-owner", "x")
            .dir("tmp", 0o1777, 7)
            .entry("empty", EntryType::Regular, |_| {}, b"")
            .entry("fifo", EntryType::Fifo, |_| {}, b""),
    );
    assert_eq!(outcome, Outcome::default());
    assert_eq!(image.show("bin/ping"), "104755 0:0 \"elf\"");
    assert_eq!(image.show("bin/ping6"), "104755 0:0 \"elf\"");
    assert_eq!(image.xattrs("bin/ping6")["security.capability"], capability);
    assert_eq!(image.show("bin/sh"), "120777 0:0 -> /bin/busybox");
    assert_eq!(image.show("big-owner"), "100644 4000000000:70000 \"x\"");
    assert_eq!(image.show("tmp"), "41777 7:0");
    assert_eq!(image.show("empty"), "100644 0:0 \"\"");
    assert_eq!(image.show("fifo"), "10644 0:0");
    let ping = image.stack().find(&[b"bin", b"ping"]).unwrap().unwrap().attributes().unwrap();
    assert_eq!((ping.mtime, ping.nanoseconds), (1_234_567_890, 123_456_789));
    let root = image.stack().root().unwrap().unwrap().attributes().unwrap();
    assert_eq!((root.mode, root.uid), (0o755, 0));
}

#[test]
fn missing_parents_take_the_attributes_of_the_layers_below() {
    let mut image = Image::new();
    image.add(Tar::default().pax(&[("SCHILY.xattr.user.a", b"1")]).dir("etc", 0o750, 5).file("etc/old", "o"));
    let outcome = image.add(Tar::default().file("etc/app/conf", "new"));
    assert!(outcome.depends_on_lower);
    assert_eq!(image.show("etc"), "40750 5:0");
    assert_eq!(image.xattrs("etc")["user.a"], b"1");
    assert_eq!(image.show("etc/app"), "40755 0:0");
    assert_eq!(image.show("etc/app/conf"), "100644 0:0 \"new\"");
    assert_eq!(image.show("etc/old"), "100644 0:0 \"o\"");
}

#[test]
fn a_parent_that_comes_late_still_counts() {
    let mut image = Image::new();
    image.add(Tar::default().file("a/b/c", "1").dir("a/b", 0o700, 1).dir("a", 0o711, 2).dir(".", 0o700, 3));
    assert_eq!(image.show("a"), "40711 2:0");
    assert_eq!(image.show("a/b"), "40700 1:0");
    assert_eq!(image.show("a/b/c"), "100644 0:0 \"1\"");
    let root = image.stack().root().unwrap().unwrap().attributes().unwrap();
    assert_eq!((root.mode, root.uid), (0o700, 3));
}

#[test]
fn a_root_directory_is_inherited() {
    let mut image = Image::new();
    assert!(image.add(Tar::default().dir("./", 0o711, 9)).has_root);
    image.inherit_root = true;
    let outcome = image.add(Tar::default().file("x", ""));
    assert!(outcome.depends_on_lower);
    let root = image.stack().root().unwrap().unwrap().attributes().unwrap();
    assert_eq!((root.mode, root.uid), (0o711, 9));
}

#[test]
fn whiteouts_hide_what_lies_below_and_only_that() {
    let mut image = Image::new();
    image.add(
        Tar::default()
            .file("gone", "1")
            .dir("d", 0o755, 0)
            .file("d/a", "1")
            .file("d/b", "1")
            .dir("e", 0o755, 0)
            .file("e/a", "1")
            .file("f", "1"),
    );
    let outcome = image.add(
        Tar::default()
            .file(".wh.gone", "")
            .dir("d", 0o755, 0)
            .file("d/new", "2")
            .file("d/.wh..wh..opq", "")
            .file(".wh.e", "")
            .dir("e", 0o755, 0)
            .file("e/new", "2")
            .file("f", "2")
            .file(".wh.f", ""),
    );
    assert!(!outcome.depends_on_lower);
    for path in ["gone", "d/a", "d/b", "e/a"] {
        assert_eq!(image.show(path), "nothing", "{path}");
    }
    for path in ["d/new", "e/new", "f"] {
        assert_eq!(image.show(path), "100644 0:0 \"2\"", "{path}");
    }
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    let mut image = Image::new();
    image.add(Tar::default().file("old", "1"));
    let outcome = image.add(Tar::default().file("new", "2").file(".wh..wh..opq", ""));
    assert!(outcome.hides_all_below);
    assert_eq!(image.show("old"), "nothing");
    assert_eq!(image.show("new"), "100644 0:0 \"2\"");
}

#[test]
fn names_lead_through_links_of_the_layers_below() {
    let mut image = Image::new();
    image.add(
        Tar::default()
            .dir("usr/lib", 0o755, 0)
            .file("usr/lib/foo", "1")
            .file("usr/lib/bar", "1")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/usr/../lib")
            .symlink("out", "../../../../usr"),
    );
    let outcome =
        image.add(Tar::default().file("lib/.wh.foo", "").file("abs/new", "2").file("out/lib/also", "3"));
    assert!(outcome.depends_on_lower);
    assert_eq!(image.show("lib"), "120777 0:0 -> usr/lib");
    assert_eq!(image.show("usr/lib/foo"), "nothing");
    assert_eq!(image.show("usr/lib/bar"), "100644 0:0 \"1\"");
    assert_eq!(image.show("usr/lib/new"), "100644 0:0 \"2\"");
    assert_eq!(image.show("usr/lib/also"), "100644 0:0 \"3\"");
}

#[test]
fn a_hard_link_to_a_file_below_brings_it_up() {
    let mut image = Image::new();
    image.add(Tar::default().dir("d", 0o700, 3).entry(
        "d/a",
        EntryType::Regular,
        |header| header.set_mode(0o600),
        b"data",
    ));
    let outcome = image.add(Tar::default().hardlink("b", "d/a"));
    assert!(outcome.depends_on_lower);
    assert_eq!(image.show("b"), "100600 0:0 \"data\"");
    assert_eq!(image.show("d/a"), "100600 0:0 \"data\"");
    assert_eq!(image.show("d"), "40700 3:0");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let mut image = Image::new();
    image.add(
        Tar::default()
            .file("a", "1")
            .file("a", "22")
            .dir("b", 0o755, 0)
            .file("b/x", "1")
            .file("b", "file")
            .file("c", "1")
            .dir("c", 0o711, 0)
            .file("c/y", "2")
            .dir("d", 0o755, 0)
            .file("d/deep/z", "1")
            .symlink("d", "c")
            .file("d/through", "3")
            .file("e", "1")
            .hardlink("f", "e")
            .file("e", "2")
            .file("g", "1")
            .hardlink("g", "a"),
    );
    assert_eq!(image.show("a"), "100644 0:0 \"22\"");
    assert_eq!(image.show("b"), "100644 0:0 \"file\"");
    assert_eq!(image.show("b/x"), "nothing");
    assert_eq!(image.show("c"), "40711 0:0");
    assert_eq!(image.show("c/y"), "100644 0:0 \"2\"");
    assert_eq!(image.show("c/through"), "100644 0:0 \"3\"");
    assert_eq!(image.show("d"), "120777 0:0 -> c");
    assert_eq!((image.show("e"), image.show("f")), ("100644 0:0 \"2\"".into(), "100644 0:0 \"1\"".into()));
    assert_eq!(image.show("g"), "100644 0:0 \"22\"");
}

#[test]
fn hostile_names_stay_inside_and_debris_is_dropped() {
    let mut image = Image::new();
    image.add(
        Tar::default()
            .file("../../../etc/passwd", "1")
            .file("/abs", "2")
            .symlink("up", "../../..")
            .file("up/escaped", "3")
            .hardlink("hard", "../../etc/passwd")
            .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.kept", b"k")])
            .file("x", "4")
            .file(".wh..wh.aufs", "")
            .dir(".wh..wh.plnk", 0o755, 0)
            .file(".wh..wh.plnk/12.34", "junk")
            .entry(
                "null",
                EntryType::Char,
                |header| {
                    header.set_device_major(1).unwrap();
                    header.set_device_minor(3).unwrap();
                },
                b"",
            ),
    );
    assert_eq!(image.show("etc/passwd"), "100644 0:0 \"1\"");
    assert_eq!(image.show("hard"), "100644 0:0 \"1\"");
    assert_eq!(image.show("abs"), "100644 0:0 \"2\"");
    assert_eq!(image.show("escaped"), "100644 0:0 \"3\"");
    assert_eq!(image.xattrs("x").keys().collect::<Vec<_>>(), ["user.kept"]);
    assert_eq!(image.show(".wh..wh.aufs"), "nothing");
    assert_eq!(image.show(".wh..wh.plnk"), "nothing");
    assert_eq!(image.stack().find(&[b"null"]).unwrap().unwrap().inode.device(), (1, 3));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let long = "y".repeat(300);
    for (tar, words) in [
        (Tar::default().file(".wh.", ""), vec![".wh.", "whiteout"]),
        (Tar::default().file("d/.wh..", ""), vec!["d/.wh..", "whiteout"]),
        (Tar::default().file(".wh.x/y", ""), vec!["through a whiteout"]),
        (Tar::default().hardlink("a", "missing"), vec!["not there"]),
        (Tar::default().hardlink("a", "a"), vec!["itself"]),
        (Tar::default().dir("d", 0o755, 0).hardlink("a", "d"), vec!["directory"]),
        (Tar::default().file("f", "").file("f/g", ""), vec!["no directory"]),
        (Tar::default().symlink("l", "l").file("l/x", ""), vec!["too many"]),
        (Tar::default().symlink("l", ""), vec!["target"]),
        (Tar::default().pax(&[("path", long.as_bytes())]).file("x", ""), vec!["longer than 255"]),
        (Tar::default().pax(&[("path", b"a\0b")]).file("x", ""), vec!["NUL"]),
        (Tar::default().pax(&[("uid", b"4294967296")]).file("x", ""), vec!["owner"]),
        (Tar::default().pax(&[("size", b"-1")]).file("x", ""), vec!["size"]),
        (Tar::default().pax(&[]).pax(&[]).file("x", ""), vec!["two extension headers"]),
        (Tar::default().entry("s", EntryType::Symlink, |_| {}, b"data"), vec!["has data"]),
        (Tar::default().entry("q", EntryType::new(b'Q'), |_| {}, b""), vec!["'Q'"]),
    ] {
        let message = Image::new().refused(tar);
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    }
}

#[test]
fn pax_decides_the_size_as_it_does_for_everybody_else() {
    // CVE-2025-62518: a reader that takes the header's size here sees other entries than one that takes PAX's.
    let hidden = Tar::default().file("hidden", "h").0;
    let mut image = Image::new();
    let tar = Tar::default().pax(&[("size", hidden.len().to_string().as_bytes())]).entry(
        "outer",
        EntryType::Regular,
        |header| header.set_size(0),
        &hidden,
    );
    image.add(tar);
    assert_eq!(image.show("hidden"), "nothing");
    assert!(image.show("outer").starts_with("100644"));
}

#[test]
fn long_and_strange_names_arrive() {
    let deep = format!("{}/{}", "d".repeat(255), "e".repeat(255));
    let mut image = Image::new();
    image.add(
        Tar::default()
            .pax(&[("path", deep.as_bytes())])
            .file("x", "deep")
            .pax(&[("path", b"new\nline \xff\xfe"), ("linkpath", deep.as_bytes())])
            .symlink("x", "y"),
    );
    assert_eq!(image.show(&deep), "100644 0:0 \"deep\"");
    let strange = image.stack().find(&[b"new\nline \xff\xfe"]).unwrap().unwrap();
    assert_eq!(strange.target().unwrap(), deep.as_bytes());
}

#[test]
fn directories_with_many_entries_are_found_again() {
    let mut tar = Tar::default();
    for number in 0..900 {
        tar = tar.file(&format!("many/entry-with-a-rather-long-name-{number:05}"), &number.to_string());
    }
    let mut image = Image::new();
    image.add(tar);
    for number in 0..900 {
        let shown = image.show(&format!("many/entry-with-a-rather-long-name-{number:05}"));
        assert_eq!(shown, format!("100644 0:0 \"{number}\""));
    }
    assert_eq!(image.show("many/entry"), "nothing");
    assert_eq!(image.show("many/zzz"), "nothing");
}

#[test]
fn sparse_files_are_whole() {
    let mut data = b"2\n2\n3\n7\n2\n".to_vec();
    data.resize(512, 0);
    data.extend(b"abcde");
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"dir/real"),
        ("GNU.sparse.realsize", b"10"),
    ];
    let mut image = Image::new();
    image.add(
        Tar::default()
            .pax(records)
            .entry("GNUSparseFile.0/real", EntryType::Regular, |_| {}, &data)
            .file("next", "n"),
    );
    assert_eq!(image.show("dir/real"), "100644 0:0 \"\\0\\0abc\\0\\0de\\0\"");
    assert_eq!(image.show("next"), "100644 0:0 \"n\"");
}

#[test]
fn limits_hold_and_say_their_key() {
    let bytes = vec![0_u8; 1 << 20];
    let mut image = Image::new();
    image.limits.unpacked = 1 << 19;
    let tar = Tar::default().entry("big", EntryType::Regular, |_| {}, &bytes).done();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    for bomb in [encoder.finish().unwrap(), zstd::encode_all(tar.as_slice(), 3).unwrap()] {
        let message = image.try_add(&bomb, Digest::of(&tar)).unwrap_err().to_string();
        assert!(message.contains("images.max_unpacked_layer_mb"), "{message}");
    }

    image.limits = Limits { entries: 3, ..limits() };
    let message = image.refused(Tar::default().file("a/b/c", "").file("d", ""));
    assert!(message.contains("images.max_layer_entries"), "{message}");

    image.limits = Limits { path_bytes: 5, ..limits() };
    image.add(Tar::default().file("a/b/c", ""));
    for tar in [
        Tar::default().file("a/b/cd", ""),
        Tar::default().dir("a/b/cd", 0o755, 0),
        Tar::default().symlink("a/b/cd", "x"),
    ] {
        let message = image.refused(tar);
        assert!(message.contains("a/b/cd") && message.contains("images.max_path_bytes"), "{message}");
    }

    image.limits = Limits { xattr_bytes: 5, ..limits() };
    image.add(Tar::default().pax(&[("SCHILY.xattr.user.a", b"12345")]).file("a", ""));
    let message = image.refused(Tar::default().pax(&[("SCHILY.xattr.user.a", b"123456")]).file("a", ""));
    assert!(message.contains("images.max_xattr_bytes"), "{message}");

    image.limits = Limits { convert_seconds: 0, ..limits() };
    let message = image.refused(Tar::default().file("a", ""));
    assert!(message.contains("images.max_convert_s"), "{message}");

    image.limits = Limits { compressed: 100, ..limits() };
    let message = image.refused(Tar::default().file("a", ""));
    assert!(message.contains("images.max_layer_mb"), "{message}");

    image.limits = Limits { unpacked: 1 << 19, ..limits() };
    let records: &[(&str, &[u8])] = &[("GNU.sparse.size", b"1099511627776"), ("GNU.sparse.map", b"0,1")];
    let message = image.refused(Tar::default().pax(records).file("hole", "x"));
    assert!(message.contains("images.max_unpacked_layer_mb"), "{message}");
}

#[test]
fn wrong_digests_are_found() {
    let tar = Tar::default().file("a", "1").done();
    let mut image = Image::new();
    let message = image.try_add(&tar, Digest::of(b"other")).unwrap_err().to_string();
    assert!(message.contains("uncompressed") && message.contains(&Digest::of(&tar).to_string()), "{message}");

    let directory = image.directory.path().join("x");
    fs::create_dir(&directory).unwrap();
    let job = Job {
        program: mkfs_erofs(),
        directory,
        limits: limits(),
        blob: Digest::of(b"other"),
        diff_id: Digest::of(&tar),
        inherit_root: false,
    };
    let error = convert(&job, Cursor::new(&tar), &mut Ready(Stack::default())).unwrap_err();
    assert!(matches!(error, LayerError::BlobDigest { .. }), "{error}");
    // A damaged blob is told by its digest, not by what is damaged.
    let mut cut = tar.clone();
    cut.truncate(700);
    let directory = image.directory.path().join("y");
    fs::create_dir(&directory).unwrap();
    let job = Job {
        program: mkfs_erofs(),
        directory,
        limits: limits(),
        blob: Digest::of(&tar),
        diff_id: Digest::of(&tar),
        inherit_root: false,
    };
    let error = convert(&job, Cursor::new(&cut), &mut Ready(Stack::default())).unwrap_err();
    assert!(matches!(error, LayerError::BlobDigest { .. }), "{error}");
}

#[test]
fn a_converter_that_fails_is_an_error_with_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job {
        program: "/bin/false".into(),
        directory: directory.path().join("work"),
        limits: limits(),
        blob: Digest::of(b""),
        diff_id: Digest::of(b""),
        inherit_root: false,
    };
    fs::create_dir(&job.directory).unwrap();
    let error = convert(&job, io::empty(), &mut Ready(Stack::default())).unwrap_err();
    assert!(matches!(error, LayerError::ConverterFailed { .. }), "{error}");
}
