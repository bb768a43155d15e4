//! What a layer's stream has made so far. Compact, because a layer may have millions of entries.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::{LayerError, texts::Texts};

/// A node's number; a parent's is smaller than its children's.
pub(super) type NodeId = u32;

/// The layer's root.
pub(super) const ROOT: NodeId = 0;

/// What stands at a path, as far as later entries care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory: the index of its attributes.
    Directory(u32),
    /// A symbolic link: the index of its target.
    Symlink(u32),
    /// A whiteout: nothing of the layers below is seen here.
    Whiteout,
    /// Anything else; it can be linked to.
    File,
}

#[derive(Debug)]
struct Node {
    parent: NodeId,
    name: u32,
    kind: Kind,
}

/// All nodes, their names in one piece of memory.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    names: Texts,
    children: HashTable<NodeId>,
    hasher: RandomState,
}

impl Tree {
    /// Only the root, a directory with attributes 0.
    pub(super) fn new() -> Self {
        Self {
            // Its name is none, and never asked for.
            nodes: vec![Node { parent: ROOT, name: u32::MAX, kind: Kind::Directory(0) }],
            names: Texts::default(),
            children: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    fn name(&self, id: NodeId) -> &[u8] {
        self.names.get(self.nodes[id as usize].name)
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn is(&self, id: NodeId, parent: NodeId, name: &[u8]) -> bool {
        self.nodes[id as usize].parent == parent && self.name(id) == name
    }

    /// What stands at a name in a directory.
    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<(NodeId, Kind)> {
        let hash = self.hash(parent, name);
        let id = *self.children.find(hash, |id| self.is(*id, parent, name))?;
        Some((id, self.kind(id)))
    }

    /// What a node is.
    pub(super) fn kind(&self, id: NodeId) -> Kind {
        self.nodes[id as usize].kind
    }

    /// The directory that holds a node; the root's is the root.
    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.nodes[id as usize].parent
    }

    /// Puts something at a name. What stood there is gone, with all below it.
    ///
    /// # Errors
    /// More nodes than can be counted.
    pub(super) fn put(&mut self, parent: NodeId, name: &[u8], kind: Kind) -> Result<NodeId, LayerError> {
        let hash = self.hash(parent, name);
        if let Some(id) = self.children.find(hash, |id| self.is(*id, parent, name)).copied() {
            if !matches!(self.kind(id), Kind::Directory(_)) {
                self.nodes[id as usize].kind = kind;
                return Ok(id);
            }
            // The children of a replaced directory know it by its number: a new number orphans them.
            let new = self.push(parent, name, kind)?;
            if let Some(slot) = self.children.find_mut(hash, |other| *other == id) {
                *slot = new;
            }
            return Ok(new);
        }
        let id = self.push(parent, name, kind)?;
        let (nodes, names, hasher) = (&self.nodes, &self.names, &self.hasher);
        self.children.insert_unique(hash, id, |id| {
            let node = &nodes[*id as usize];
            hasher.hash_one((node.parent, names.get(node.name)))
        });
        Ok(id)
    }

    fn push(&mut self, parent: NodeId, name: &[u8], kind: Kind) -> Result<NodeId, LayerError> {
        let full = |_| LayerError::entry(name, "the layer has more names than can be kept");
        let id = NodeId::try_from(self.nodes.len()).map_err(full)?;
        let name = self.names.push(name, "bytes of the layer's names")?;
        self.nodes.push(Node { parent, name, kind });
        Ok(id)
    }

    /// A node's path from the root, without a leading slash; the root's is `.`.
    pub(super) fn path(&self, mut id: NodeId) -> Vec<u8> {
        let mut names = Vec::new();
        while id != ROOT {
            names.push(self.name(id));
            id = self.nodes[id as usize].parent;
        }
        if names.is_empty() {
            return b".".to_vec();
        }
        names.reverse();
        names.join(&b'/')
    }

    /// A path below a directory.
    pub(super) fn path_in(&self, parent: NodeId, name: &[u8]) -> Vec<u8> {
        if parent == ROOT {
            return name.to_vec();
        }
        let mut path = self.path(parent);
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    /// All directories that still stand, parents before children, with the index of their attributes.
    pub(super) fn directories(&self) -> Vec<(NodeId, u32)> {
        let mut standing = vec![false; self.nodes.len()];
        let mut found = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Ok(id) = NodeId::try_from(index) else { break };
            let current =
                id == ROOT || self.child(node.parent, self.name(id)).is_some_and(|(at, _)| at == id);
            standing[index] = current && (id == ROOT || standing[node.parent as usize]);
            if let (true, Kind::Directory(attributes)) = (standing[index], node.kind) {
                found.push((id, attributes));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_directory_takes_its_children_along() {
        let mut tree = Tree::new();
        let a = tree.put(ROOT, b"a", Kind::Directory(1)).unwrap();
        let b = tree.put(a, b"b", Kind::Directory(2)).unwrap();
        tree.put(b, b"c", Kind::File).unwrap();
        assert_eq!(tree.path_in(b, b"c"), b"a/b/c");

        tree.put(ROOT, b"a", Kind::File).unwrap();
        let again = tree.put(ROOT, b"a", Kind::Directory(3)).unwrap();
        assert_eq!(tree.child(again, b"b"), None);
        assert_eq!(tree.directories(), [(ROOT, 0), (again, 3)]);
    }

    #[test]
    fn many_names_are_found_again() {
        let mut tree = Tree::new();
        let directory = tree.put(ROOT, b"d", Kind::Directory(1)).unwrap();
        for number in 0..5000_u32 {
            tree.put(directory, number.to_string().as_bytes(), Kind::File).unwrap();
        }
        assert!((0..5000_u32).all(|number| tree.child(directory, number.to_string().as_bytes()).is_some()));
        assert_eq!(tree.child(ROOT, b"0"), None);
    }
}
