//! What of an entry arrives.

use super::*;

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
fn only_files_have_data_whatever_a_size_says() {
    let sized = |header: &mut Header| header.set_size(1 << 20);
    let mut image = Image::new();
    let mut tar = Tar::default().file("file", "f").entry("d", EntryType::Directory, sized, b"");
    for (name, kind) in [("hard", EntryType::Link), ("soft", EntryType::Symlink)] {
        let link = |header: &mut Header| {
            sized(header);
            header.as_old_mut().linkname[..4].copy_from_slice(b"file");
        };
        tar = tar.entry(name, kind, link, b"");
    }
    image.add(tar.pax(&[("size", b"18446744073709551615")]).dir("huge", 0o755, 0).file("last", "l"));
    assert_eq!(image.show("hard"), "100644 0:0 \"f\"");
    assert_eq!(image.show("soft"), "120777 0:0 -> file");
    assert_eq!(image.show("last"), "100644 0:0 \"l\"");
}

#[test]
fn attributes_that_linux_has_of_files_and_directories_only_are_dropped_elsewhere() {
    let attributes: &[(&str, &[u8])] =
        &[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.security.selinux", b"label")];
    let mut image = Image::new();
    image.add(Tar::default().pax(attributes).symlink("link", "x").pax(attributes).dir("dir", 0o755, 0));
    assert_eq!(image.xattrs("link").keys().collect::<Vec<_>>(), ["security.selinux"]);
    assert_eq!(image.xattrs("dir").len(), 2);
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
