//! Tests of the encoding of operations.

use super::*;
use crate::object::Content;
use std::sync::Arc;

fn examples() -> Vec<Operation> {
    let name = Name::new(b"a name").unwrap();
    let device = NewNode { kind: EntryKind::CharDevice, mode: 0, uid: 1, gid: 2, device: 0, target: (*b"").into() };
    let time = Timestamp { secs: -3, nanos: 7 };
    let node = NewNode { kind: EntryKind::Symlink, mode: 0o777, uid: 1, gid: 2, device: 0, target: (*b"x/y").into() };
    let change = AttributeChange { uid: Some(4), mtime: Some(time), size_bytes: Some(9), ..Default::default() };
    let xattrs: Xattrs = Some(Arc::new([((*b"user.a").into(), (*b"1").into())].into()));
    let content = Content::Blob(crate::object::ObjectId::of(b"content"));
    let shared = Shared { content, size_bytes: 9, data_bytes: 9 };
    let options = RangeOptions { keep_size: true, strip_privileges: true };
    vec![
        Operation::Bind { identity: 9, parent: 1, name: name.clone() },
        Operation::BindLink { identity: 12 },
        Operation::Create { parent: 1, name: name.clone(), identity: 1 << 40, node: node.clone(), xattrs: None, time },
        Operation::Create { parent: 1, name: name.clone(), identity: 1 << 40, node, xattrs: xattrs.clone(), time },
        Operation::Link { identity: 5, parent: 1, name: name.clone(), time },
        Operation::Remove { parent: 1, name: name.clone(), time },
        Operation::Rename { parent: 1, name: name.clone(), new_parent: 3, new_name: name.clone(), time },
        Operation::RenameLeaving {
            parent: 1,
            name: name.clone(),
            new_parent: 3,
            new_name: name.clone(),
            left: Left { identity: 70, node: device, xattrs: xattrs.clone() },
            time,
        },
        Operation::Exchange { parent: 1, name: name.clone(), new_parent: 3, new_name: name, time },
        Operation::SetAttributes { identity: 4, change, time },
        Operation::SetXattr { identity: 4, name: (*b"user.a").into(), value: None, time },
        Operation::SetXattr { identity: 4, name: (*b"user.a").into(), value: Some((*b"").into()), time },
        Operation::Write { identity: 4, offset: 77, data: (*b"data").into(), strip_privileges: true, time },
        Operation::Layer { identity: 4, staging: 8 },
        Operation::WriteStaged { identity: 4, offset: 1 << 50, len: 3, strip_privileges: false, time },
        Operation::ChangeRange { identity: 4, offset: 0, len: 3, change: RangeChange::Allocate, options, time },
        Operation::Hand { identity: 4, staging: 8, changed: time },
        Operation::Rest { identity: 4, content: Resting::Bytes((*b"all").into()), mtime: time, ctime: time },
        Operation::Rest { identity: 4, content: Resting::Sealed(shared), mtime: time, ctime: time },
        Operation::Share { identity: 4, shared, strip_privileges: true, time },
    ]
}

#[test]
fn every_operation_round_trips() {
    for operation in examples() {
        let mut writer = Writer::new();
        operation.encode(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(Operation::decode(&mut reader).unwrap(), operation);
        reader.finish().unwrap();
    }
}

#[test]
fn a_cut_or_flipped_operation_is_an_error_or_another_operation_but_no_panic() {
    for operation in examples() {
        let mut writer = Writer::new();
        operation.encode(&mut writer);
        let bytes = writer.finish();
        for at in 0..bytes.len() {
            assert!(Operation::decode(&mut Reader::new(&bytes[..at])).is_err());
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let _ = Operation::decode(&mut Reader::new(&flipped));
            }
        }
    }
}
