//! Finds the directory that an entry belongs in: in what the layer's own stream made, else in the layers below.

use super::{
    LayerError,
    limits::MAX_LINKS,
    output::Output,
    tree::{Kind, NodeId, ROOT},
};

/// A name with its links still to be followed, the next component last.
struct Walk {
    rest: Vec<Vec<u8>>,
    links: usize,
}

impl Walk {
    fn new(components: &[&[u8]]) -> Self {
        Self { rest: components.iter().rev().map(|component| component.to_vec()).collect(), links: 0 }
    }

    /// Puts a link's target before what is left. True if it starts at the root.
    fn follow(&mut self, target: &[u8]) -> Result<bool, LayerError> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(LayerError::entry(target, "it leads through too many symbolic links"));
        }
        let parts = target.split(|byte| *byte == b'/').rev();
        self.rest.extend(parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec));
        Ok(target.first() == Some(&b'/'))
    }
}

/// The directory at a path, made if it is missing, links followed within the image's root.
pub(super) fn directory<W: std::io::Write>(
    output: &mut Output<'_, W>,
    components: &[&[u8]],
) -> Result<NodeId, LayerError> {
    let mut walk = Walk::new(components);
    let mut at = ROOT;
    while let Some(name) = walk.rest.pop() {
        if name == b".." {
            at = output.tree.parent(at);
            continue;
        }
        let target = match output.tree.child(at, &name) {
            Some((id, Kind::Directory(_))) => {
                at = id;
                continue;
            }
            Some((_, Kind::Symlink(target))) => output.target(target).to_vec(),
            Some((_, Kind::Whiteout)) => {
                at = output.new_directory_over_whiteout(at, &name)?;
                continue;
            }
            Some((_, Kind::File)) => {
                let path = output.tree.path_in(at, &name);
                return Err(LayerError::entry(
                    &path,
                    "another entry's name leads through it, and it is no directory",
                ));
            }
            None => match below(output, at, &name)? {
                Missing::Made(id) => {
                    at = id;
                    continue;
                }
                Missing::Link(target) => target,
            },
        };
        if walk.follow(&target)? {
            at = ROOT;
        }
    }
    Ok(at)
}

/// What the layers below have where this layer has nothing.
enum Missing {
    /// A directory, or nothing: it was written into this layer.
    Made(NodeId),
    /// A link to follow.
    Link(Vec<u8>),
}

fn below<W: std::io::Write>(
    output: &mut Output<'_, W>,
    parent: NodeId,
    name: &[u8],
) -> Result<Missing, LayerError> {
    let found = output.lower(parent, name)?;
    match found {
        Some(found) if found.inode.is_symlink() => Ok(Missing::Link(found.target()?)),
        Some(found) if found.inode.is_directory() => {
            let attributes = found.attributes()?;
            output.implicit_directory(parent, name, Some(attributes)).map(Missing::Made)
        }
        _ => output.implicit_directory(parent, name, None).map(Missing::Made),
    }
}
