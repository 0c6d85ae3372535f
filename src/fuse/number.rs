//! Node numbers: one space of 64 bits for all branches, the control directory and old states.

/// The branch that the mount shows at its top.
pub const NAMESPACE_TOP: u16 = 0;
/// The control directory and the states it shows.
pub const NAMESPACE_CONTROL: u16 = 0xfffe;

const INO_BITS: u32 = 48;

/// A node number taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumber {
    /// Whose number it is.
    pub namespace: u16,
    /// The number there.
    pub ino: u64,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_apart_as_they_were_put_together() {
        let node = NodeNumber { namespace: NAMESPACE_CONTROL, ino: (1 << 47) + 5 };
        assert_eq!(NodeNumber::unpack(node.pack()), node);
        assert_eq!(NodeNumber::unpack(1), NodeNumber { namespace: NAMESPACE_TOP, ino: 1 });
    }
}
