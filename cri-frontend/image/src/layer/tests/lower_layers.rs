//! Layers that depend on what lies below them, or hide it.

use super::*;

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
    // Nor must it be said, where a layer below is known to be unusual.
    image.inherit_root = false;
    assert!(image.add(Tar::default().file("y", "")).depends_on_lower);
    assert!(!image.add(Tar::default().dir("./", 0o755, 0)).depends_on_lower);
    assert!(!image.add(Tar::default().file("z", "")).depends_on_lower);
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
