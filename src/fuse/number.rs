//! Node numbers: one space of 64 bits for the files and the control directories of all views of a mount.

/// The number of the view at the top of a mount.
pub const TOP: u16 = 0;
/// Largest number of a view.
pub const VIEW_MAX: u16 = u16::MAX >> 1;

const INO_BITS: u32 = 48;

/// A node number taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumber {
    /// Whose number it is: [`files_of`] or [`control_of`] a view.
    pub namespace: u16,
    /// The number there.
    pub ino: u64,
}

/// Returns the namespace of a view's files.
pub fn files_of(view: u16) -> u16 {
    view << 1
}

/// Returns the namespace of a view's control directory.
pub fn control_of(view: u16) -> u16 {
    view << 1 | 1
}

impl NodeNumber {
    /// Takes a kernel's number apart.
    pub fn unpack(number: u64) -> Self {
        Self { namespace: (number >> INO_BITS) as u16, ino: number & ((1 << INO_BITS) - 1) }
    }

    /// Returns the kernel's number.
    pub fn pack(self) -> u64 {
        u64::from(self.namespace) << INO_BITS | self.ino
    }

    /// Returns the view whose number it is.
    pub fn view(self) -> u16 {
        self.namespace >> 1
    }

    /// Says whether it is a number of the view's control directory.
    pub fn is_control(self) -> bool {
        self.namespace & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_apart_as_they_were_put_together() {
        let node = NodeNumber { namespace: control_of(VIEW_MAX), ino: (1 << 47) + 5 };
        assert_eq!(NodeNumber::unpack(node.pack()), node);
        assert_eq!((node.view(), node.is_control()), (VIEW_MAX, true));
        let root = NodeNumber::unpack(1);
        assert_eq!(root, NodeNumber { namespace: files_of(TOP), ino: 1 });
        assert!(!root.is_control());
    }
}
