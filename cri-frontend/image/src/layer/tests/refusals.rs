//! Layers that nobody should have made.

use super::*;

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
        (Tar::default().entry("s", EntryType::Symlink, |_| {}, b"data"), vec!["target"]),
        (Tar::default().symlink("s", "t").raw(b"data"), vec!["cannot read the layer"]),
        (
            Tar::default().pax(&[("size", b"18446744073709551615")]).file(".wh..wh.aufs", ""),
            vec!["ends within"],
        ),
        (Tar::default().entry("q", EntryType::new(b'Q'), |_| {}, b""), vec!["'Q'"]),
    ] {
        let message = Image::new().refused(tar);
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    }
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

    let names: Vec<String> = (0..1025).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"1".as_slice())).collect();
    image.limits = limits();
    for tar in [
        Tar::default().pax(&records).file("a", ""),
        Tar::default().pax(&records[..600]).dir("a", 0o755, 0).pax(&records[600..]).dir("a", 0o755, 0),
    ] {
        let message = image.refused(tar);
        assert!(message.contains("extended attributes of an entry"), "{message}");
    }

    image.limits = Limits { convert_seconds: 0, ..limits() };
    let message = image.refused(Tar::default().file("a", ""));
    assert!(message.contains("images.max_convert_s"), "{message}");
    // This side's own time, too: the converter gets nothing here.
    let names = (0..100).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), "")).done();
    let mut below = Ready(Stack::default());
    let error = normalise(names.as_slice(), io::sink(), &mut below, false, image.limits).unwrap_err();
    assert!(error.to_string().contains("images.max_convert_s"), "{error}");

    image.limits = Limits { keep_free: 1 << 50, ..limits() };
    let message = image.refused(Tar::default().file("a", ""));
    assert!(message.contains("images.keep_free_mb"), "{message}");

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
        user: CONVERTER_UIDS.start,
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
        user: CONVERTER_UIDS.start,
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
        user: CONVERTER_UIDS.start,
        limits: limits(),
        blob: Digest::of(b""),
        diff_id: Digest::of(b""),
        inherit_root: false,
    };
    fs::create_dir(&job.directory).unwrap();
    let error = convert(&job, io::empty(), &mut Ready(Stack::default())).unwrap_err();
    assert!(matches!(error, LayerError::ConverterFailed { .. }), "{error}");
}
