//! Whom a container runs as: what the guest is to look up in the container's own /etc/passwd and /etc/group.

use a3s_box_proto::cri::{self, SupplementalGroupsPolicy};

use crate::{
    Input, check,
    error::{SpecError, invalid},
    image_config, security,
};

/// The largest uid and gid, as in containerd.
const MAX_ID: u32 = i32::MAX as u32;
/// Longer than any name in a passwd file.
const MAX_NAME: usize = 256;

/// A user by number or name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserLookup {
    /// Number or name; empty means 0.
    pub user: String,
    /// Number or name; empty means the user's own group, else 0.
    pub group: String,
    /// More groups.
    pub supplemental_groups: Vec<u32>,
    /// The groups of /etc/group are not added.
    pub strict: bool,
}

/// The user that the container names, else the image's, else root.
pub(crate) fn lookup(input: &Input<'_>) -> Result<UserLookup, SpecError> {
    let empty = cri::LinuxContainerSecurityContext::default();
    let context = security::of_container(input.container).unwrap_or(&empty);
    let policy = context.supplemental_groups_policy;
    let strict = match SupplementalGroupsPolicy::try_from(policy) {
        Ok(SupplementalGroupsPolicy::Merge) => false,
        Ok(SupplementalGroupsPolicy::Strict) => true,
        Err(_) => return Err(invalid("supplemental_groups_policy", format!("{policy} is none"))),
    };
    let groups = context.supplemental_groups.iter();
    let supplemental_groups =
        groups.map(|group| id("supplemental_groups", *group)).collect::<Result<_, _>>()?;
    let (user, group) = match own(context)? {
        Some(own) => own,
        None => of_image(input)?,
    };
    Ok(UserLookup { user, group, supplemental_groups, strict })
}

/// A group alone is an error, also where the image has a user.
fn own(context: &cri::LinuxContainerSecurityContext) -> Result<Option<(String, String)>, SpecError> {
    let number = |field, value: &Option<cri::Int64Value>| {
        value.as_ref().map(|value| id(field, value.value)).transpose()
    };
    let user = number("run_as_user", &context.run_as_user)?.map(|id| id.to_string());
    let group = number("run_as_group", &context.run_as_group)?.map(|id| id.to_string());
    let user = if context.run_as_username.is_empty() {
        user
    } else {
        Some(name("run_as_username", &context.run_as_username)?)
    };
    match (user, group) {
        (None, Some(group)) => Err(invalid(
            "run_as_group",
            format!("group {group} is given without run_as_user or run_as_username"),
        )),
        (None, None) => Ok(None),
        (Some(user), group) => Ok(Some((user, group.unwrap_or_default()))),
    }
}

fn of_image(input: &Input<'_>) -> Result<(String, String), SpecError> {
    let text = image_config(input).and_then(|image| image.user().as_deref()).unwrap_or_default();
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let part = |text: &str| if text.is_empty() { Ok(String::new()) } else { name("the image's User", text) };
    Ok((part(user)?, part(group)?))
}

fn id(field: &str, value: i64) -> Result<u32, SpecError> {
    let id: u32 = check::number(field, value, "a number from 0 to 2147483647")?;
    if id > MAX_ID {
        return Err(invalid(field, format!("{id} is above the largest, {MAX_ID}")));
    }
    Ok(id)
}

/// A name, or a number in its place.
fn name(field: &str, text: &str) -> Result<String, SpecError> {
    check::text(field, text, MAX_NAME)?;
    if text.contains(|c: char| c.is_control() || matches!(c, ':' | '/')) {
        return Err(invalid(field, format!("{} is neither a name nor a number", check::shown(text))));
    }
    if text.chars().all(|c| c.is_ascii_digit()) && !text.parse().is_ok_and(|id: u32| id <= MAX_ID) {
        return Err(invalid(field, format!("{} is above the largest, {MAX_ID}", check::shown(text))));
    }
    Ok(text.to_owned())
}
