//! Where fields lie in this kernel's structures, from its own type information (BTF,
//! `include/uapi/linux/btf.h`). Reading only what is asked for; any bytes are survived.

use std::{fs, io, path::Path};

/// Where the kernel shows its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type`, and of each `struct btf_member` behind it.
const TYPE: usize = 12;
const MEMBER: usize = 12;
/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;

/// How the data plane tells that the memory of a packet can still change: see
/// `egress-ebpf/src/shared.rs`. Bytes from the start of each structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedMemory {
    /// `head` in `struct sk_buff`.
    pub head: u32,
    /// `end` in `struct sk_buff`.
    pub end: u32,
    /// `flags` or `tx_flags` in `struct skb_shared_info`.
    pub flags: u32,
    /// The bit in those.
    pub mask: u32,
}

impl SharedMemory {
    /// Looks it up in the running kernel. Fails where the kernel has no type information
    /// (`CONFIG_DEBUG_INFO_BTF`), or its structures are none that this version knows.
    pub fn of_this_kernel() -> io::Result<Self> {
        let types = fs::read(Path::new(VMLINUX))?;
        Self::find(&types).ok_or_else(|| {
            io::Error::other(format!("{VMLINUX} has no sk_buff as this version knows it"))
        })
    }

    fn find(types: &[u8]) -> Option<Self> {
        let types = Types::open(types)?;
        let packet = types.structure("sk_buff")?;
        let record = types.structure("skb_shared_info")?;
        // `SKBFL_SHARED_FRAG` and, before Linux 5.12, `SKBTX_SHARED_FRAG`.
        let (flags, mask) = match types.offset(&record, "flags") {
            Some(flags) => (flags, 1 << 1),
            None => (types.offset(&record, "tx_flags")?, 1 << 5),
        };
        Some(Self {
            head: types.offset(&packet, "head")?,
            end: types.offset(&packet, "end")?,
            flags,
            mask,
        })
    }
}

/// Type information, taken apart into its two halves.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// A structure's members, as they lie there.
struct Structure<'a> {
    members: &'a [u8],
    bitfields: bool,
}

impl<'a> Types<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(array(bytes, 0)?) != MAGIC {
            return None;
        }
        let body = bytes.get(word(bytes, 4)?..)?;
        let part = |offset, length| {
            let start = word(bytes, offset)?;
            body.get(start..start.checked_add(word(bytes, length)?)?)
        };
        Some(Self {
            types: part(8, 12)?,
            strings: part(16, 20)?,
        })
    }

    /// The first structure of that name that has members.
    fn structure(&self, name: &str) -> Option<Structure<'a>> {
        let mut at = 0_usize;
        loop {
            let head = self.types.get(at..)?;
            let info = u32::from_ne_bytes(array(head, 4)?);
            let (kind, count) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
            let extra = trailer(kind, count)?;
            let body = head.get(TYPE..TYPE.checked_add(extra)?)?;
            if kind == STRUCT && count > 0 && self.is_named(word(head, 0)?, name) {
                return Some(Structure {
                    members: body,
                    bitfields: info >> 31 == 1,
                });
            }
            at = at.checked_add(TYPE)?.checked_add(extra)?;
        }
    }

    /// Bytes in front of a member that is no bit field.
    fn offset(&self, structure: &Structure<'_>, name: &str) -> Option<u32> {
        let mut members = structure.members.chunks_exact(MEMBER);
        let member = members
            .find(|member| word(member, 0).is_some_and(|offset| self.is_named(offset, name)))?;
        let place = u32::from_ne_bytes(array(member, 8)?);
        let bits = if structure.bitfields {
            if place >> 24 != 0 {
                return None;
            }
            place & 0x00ff_ffff
        } else {
            place
        };
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn is_named(&self, offset: usize, name: &str) -> bool {
        let end = offset.saturating_add(name.len());
        self.strings.get(offset..end) == Some(name.as_bytes()) && self.strings.get(end) == Some(&0)
    }
}

/// Bytes behind a `btf_type`, by its kind and count; `None` for a kind that is not known.
fn trailer(kind: u32, count: usize) -> Option<usize> {
    let each = match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => return Some(0),
        // Integer, variable, declaration tag.
        1 | 14 | 17 => return Some(4),
        // Array.
        3 => return Some(12),
        // Structure, union, section, 64-bit enumeration.
        4 | 5 | 15 | 19 => 12,
        // Enumeration, function prototype.
        6 | 13 => 8,
        _ => return None,
    };
    count.checked_mul(each)
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(array(bytes, at)?)).ok()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    /// `struct name { member at each offset }`, with something of another kind in front.
    fn types(structures: &[(&str, &[(&str, u32)])]) -> Vec<u8> {
        let (mut types, mut strings) = (Vec::new(), vec![0]);
        let mut push = |bytes: &mut Vec<u8>, words: &[u32]| {
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        };
        push(&mut types, &[0, 1 << 24, 4, 32]);
        for (name, members) in structures {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend(name.bytes().chain([0]));
            let count = u32::try_from(members.len()).unwrap();
            push(&mut types, &[at, 4 << 24 | count, 64]);
            for (name, offset) in *members {
                let at = u32::try_from(strings.len()).unwrap();
                strings.extend(name.bytes().chain([0]));
                push(&mut types, &[at, 1, offset * 8]);
            }
        }
        let (first, second) = (types.len(), strings.len());
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let first = u32::try_from(first).unwrap();
        let second = u32::try_from(second).unwrap();
        push(&mut bytes, &[24, 0, first, first, second]);
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn both_generations_are_known() {
        let packet: &[(&str, u32)] = &[("len", 0), ("end", 188), ("head", 192)];
        let new = types(&[("sk_buff", packet), ("skb_shared_info", &[("flags", 0)])]);
        let found = SharedMemory::find(&new).unwrap();
        assert_eq!((found.head, found.end), (192, 188));
        assert_eq!((found.flags, found.mask), (0, 2));
        let old = types(&[("skb_shared_info", &[("tx_flags", 3)]), ("sk_buff", packet)]);
        let found = SharedMemory::find(&old).unwrap();
        assert_eq!((found.flags, found.mask), (3, 32));
        let without = types(&[("sk_buff", packet), ("skb_shared_info", &[("other", 0)])]);
        assert_eq!(SharedMemory::find(&without), None);
    }

    #[test]
    fn this_kernel_is_one_of_them() {
        // Where the kernel shows its types; a host without is no fault of this code.
        if Path::new(VMLINUX).exists() {
            SharedMemory::of_this_kernel().unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(mut bytes in proptest::collection::vec(any::<u8>(), 24..400), kind in 0..32_u8) {
            for (at, byte) in MAGIC.to_ne_bytes().into_iter().enumerate() {
                bytes.splice(at..=at, [byte]);
            }
            bytes.splice(4..24, [24, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0, 50, 0, 0, 0]);
            if bytes.len() > 31 {
                bytes.splice(31..=31, [kind]);
            }
            let _nothing = SharedMemory::find(&bytes);
        }
    }
}
