//! Who a container's process runs as, by the container's own /etc/passwd and /etc/group: a static program has no
//! name service, and the guest's users are not the container's.

use crate::{error::Error, rootfs::lookup::Root};

/// Longer files are refused: they would be held in the agent's memory.
const MAX_FILE: u64 = 4 << 20;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Number or name; empty means 0.
    pub user: String,
    /// Number or name; empty means the user's own.
    pub group: String,
    /// Groups besides those of /etc/group.
    pub supplemental_groups: Vec<u32>,
    /// The groups of /etc/group are not added.
    pub strict: bool,
}

/// What it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups, each once, in order.
    pub groups: Vec<u32>,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Ids that the kernel can hold: -1 means "leave as it is" to it.
fn id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&id: &u32| is_number && id != u32::MAX)
}

fn users(passwd: &str) -> impl Iterator<Item = Passwd<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = id(fields.nth(1)?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Looks a user up in a container's root.
pub fn resolve(root: &Root, wanted: &Wanted) -> Result<Resolved, Error> {
    let read = |path| root.read(path, MAX_FILE).map_err(|error| Error::invalid("user", error));
    resolve_in(&read("/etc/passwd")?, &read("/etc/group")?, wanted)
}

fn resolve_in(passwd: &str, group: &str, wanted: &Wanted) -> Result<Resolved, Error> {
    let user = wanted.user.as_str();
    let number = if user.is_empty() { Some(0) } else { id(user) };
    // A number is looked up too: its entry tells the group.
    let entry = users(passwd).find(|entry| number.map_or(entry.name == user, |uid| entry.uid == uid));
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => {
            let why =
                format!("unable to find user {user:?}: no matching entries in the container's /etc/passwd");
            return Err(Error::invalid("user", why));
        }
    };
    let gid = match wanted.group.as_str() {
        "" => entry.as_ref().map_or(0, |entry| entry.gid),
        name => find_group(group, name)?,
    };
    // The group itself is among them, as in containerd: a process that leaves it shall not pass for "others" where the
    // group is refused what they may (CVE-2022-2995).
    let mut all = vec![gid];
    all.extend(&wanted.supplemental_groups);
    if let Some(entry) = entry.filter(|_| !wanted.strict) {
        let is_member =
            |group: &Group<'_>| group.members.split(',').any(|member| member.trim() == entry.name);
        all.extend(groups(group).filter(is_member).map(|group| group.gid));
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|gid| seen.insert(*gid));
    Ok(Resolved { uid, gid, groups: all })
}

fn find_group(group: &str, name: &str) -> Result<u32, Error> {
    if let Some(gid) = id(name) {
        return Ok(gid);
    }
    groups(group).find(|entry| entry.name == name).map(|entry| entry.gid).ok_or_else(|| {
        let why = format!("unable to find group {name:?}: no matching entries in the container's /etc/group");
        Error::invalid("group", why)
    })
}

/// The home directory of a user; `/` if the container does not know him.
pub fn home(root: &Root, uid: u32) -> Result<String, Error> {
    let passwd = root.read("/etc/passwd", MAX_FILE).map_err(|error| Error::invalid("user", error))?;
    Ok(home_in(&passwd, uid))
}

fn home_in(passwd: &str, uid: u32) -> String {
    users(passwd)
        .find(|entry| entry.uid == uid)
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
# comment
root:x:0:0:root:/root:/bin/sh
broken
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
huge:x:4294967295:1::/:
dev:x:1000:1000::/home/dev:/bin/sh
";
    const GROUP: &str = "\
root:x:0:
www-data:x:33:
users:x:100:dev, www-data
wheel:x:10:root,dev
dup:x:100:dev
";

    fn resolve(user: &str, group: &str) -> Result<Resolved, String> {
        let wanted = Wanted { user: user.to_owned(), group: group.to_owned(), ..Wanted::default() };
        resolve_in(PASSWD, GROUP, &wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(resolve("", ""), Ok(Resolved { uid: 0, gid: 0, groups: vec![0, 10] }));
        assert_eq!(resolve("dev", ""), Ok(Resolved { uid: 1000, gid: 1000, groups: vec![1000, 100, 10] }));
        assert_eq!(resolve("1000", "users"), Ok(Resolved { uid: 1000, gid: 100, groups: vec![100, 10] }));
        assert_eq!(resolve("4242", ""), Ok(Resolved { uid: 4242, gid: 0, groups: vec![0] }));
        assert_eq!(resolve("www-data", "7"), Ok(Resolved { uid: 33, gid: 7, groups: vec![7, 100] }));
    }

    #[test]
    fn the_missing_and_the_impossible_are_clear_errors() {
        assert!(resolve("nobody", "").unwrap_err().contains("unable to find user \"nobody\""));
        assert!(resolve("dev", "staff").unwrap_err().contains("unable to find group \"staff\""));
        for bad in ["huge", "4294967295", "-1", "+1", "root\n0", "99999999999"] {
            assert!(resolve(bad, "").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn strict_leaves_only_the_groups_that_were_asked_for() {
        let wanted = Wanted {
            user: "dev".to_owned(),
            supplemental_groups: vec![5, 5, 100],
            strict: true,
            ..Wanted::default()
        };
        assert_eq!(resolve_in(PASSWD, GROUP, &wanted).unwrap().groups, [1000, 5, 100]);
        let merged = resolve_in(PASSWD, GROUP, &Wanted { strict: false, ..wanted }).unwrap();
        assert_eq!(merged.groups, [1000, 5, 100, 10]);
    }

    #[test]
    fn home_is_the_users_or_the_root() {
        assert_eq!(home_in(PASSWD, 1000), "/home/dev");
        assert_eq!(home_in(PASSWD, 12), "/");
    }
}
