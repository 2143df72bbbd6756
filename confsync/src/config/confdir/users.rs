//! Resolves user and group names to numbers, as the machine does (NSS included).

use nix::unistd::{Group, User};

/// The uid of a name, or of digits.
///
/// # Errors
/// When there is no such user.
pub(super) fn uid(name: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("owner = \"{name}\": there is no such user on this machine")),
        Err(error) => Err(format!("owner = \"{name}\": {error}")),
    }
}

/// The gid of a name, or of digits.
///
/// # Errors
/// When there is no such group.
pub(super) fn gid(name: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("group = \"{name}\": there is no such group on this machine")),
        Err(error) => Err(format!("group = \"{name}\": {error}")),
    }
}
