//! Where the running kernel's structures keep their members: a reader for just that of the
//! kernel's type information (`Documentation/bpf/btf.rst`). aya reads it, too, and shows
//! nothing of it.

use std::{fs, io, path::Path};

/// Where the kernel shows its types.
pub(super) const FILE: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC`, `include/uapi/linux/btf.h`.
const MAGIC: u16 = 0xeb9f;
/// How deep unnamed members are followed.
const DEPTH: u32 = 8;

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;

/// The structures of a kernel.
pub(super) struct Structures {
    data: Vec<u8>,
    strings: usize,
    /// Where each type begins; types are numbered from 1.
    types: Vec<usize>,
    /// Structures: where the name stands among the strings, and the type.
    named: Vec<(u32, u32)>,
    /// Functions, the same.
    functions: Vec<(u32, u32)>,
}

/// The parts of `struct btf_type` that are used.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    entries: u32,
    /// Offsets of members carry the size of a bit field.
    flag: bool,
}

impl Structures {
    /// Reads a file of types.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        Self::parse(fs::read(file)?).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is no BTF of this byte order", file.display()),
            )
        })
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let magic = u16::from_ne_bytes(data.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let header = word(&data, 4)? as usize;
        let at = header.checked_add(word(&data, 8)? as usize)?;
        let end = at.checked_add(word(&data, 12)? as usize)?;
        let strings = header.checked_add(word(&data, 16)? as usize)?;
        let mut structures = Self {
            data,
            strings,
            types: Vec::new(),
            named: Vec::new(),
            functions: Vec::new(),
        };
        let mut at = at;
        while at < end {
            let found = structures.header(at)?;
            structures.types.push(at);
            let id = u32::try_from(structures.types.len()).ok()?;
            match found.kind {
                STRUCT if found.name != 0 => structures.named.push((found.name, id)),
                FUNCTION => structures.functions.push((found.name, id)),
                _ => {}
            }
            at = at.checked_add(12)?.checked_add(found.more()? as usize)?;
        }
        Some(structures)
    }

    /// The place of a member in a structure, unnamed parts of it included. Bytes.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        // Few are asked for; names of their own for all would be more than the rest of the agent.
        let is_it = |(name, _): &&(u32, u32)| self.string(*name) == Some(structure);
        let (_, id) = *self.named.iter().rfind(is_it)?;
        Some(self.bits(id, member, DEPTH)? / 8)
    }

    /// The number of a function's type, by which programs call those of the kernel's that are
    /// meant for them.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        let is_it = |(at, _): &&(u32, u32)| self.string(*at) == Some(name);
        self.functions.iter().find(is_it).map(|(_, id)| *id)
    }

    fn bits(&self, id: u32, member: &str, depth: u32) -> Option<u32> {
        let at = *self.types.get((id as usize).checked_sub(1)?)?;
        let found = self.header(at)?;
        if !matches!(found.kind, STRUCT | UNION) || depth == 0 {
            return None;
        }
        for index in 0..found.entries as usize {
            let entry = at.checked_add(12)?.checked_add(index.checked_mul(12)?)?;
            let (name, kind) = (word(&self.data, entry)?, word(&self.data, entry + 4)?);
            let mut bits = word(&self.data, entry + 8)?;
            if found.flag {
                bits &= 0x00ff_ffff;
            }
            if name == 0 {
                if let Some(inner) = self.bits(kind, member, depth - 1) {
                    return bits.checked_add(inner);
                }
            } else if self.string(name)? == member {
                return Some(bits);
            }
        }
        None
    }

    fn header(&self, at: usize) -> Option<Type> {
        let info = word(&self.data, at.checked_add(4)?)?;
        Some(Type {
            name: word(&self.data, at)?,
            kind: info >> 24 & 0x1f,
            entries: info & 0xffff,
            flag: info >> 31 == 1,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let from = self
            .data
            .get(self.strings.checked_add(offset as usize)?..)?;
        let end = from.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(from.get(..end)?).ok()
    }
}

impl Type {
    /// Bytes behind the header; `None` for a kind that came after this was written, behind
    /// which nothing can be found any more.
    fn more(self) -> Option<u32> {
        Some(match self.kind {
            // int, variable, declaration tag
            1 | 14 | 17 => 4,
            // array
            3 => 12,
            // structure, union, section, enumeration of 64 bits
            STRUCT | UNION | 15 | 19 => self.entries.checked_mul(12)?,
            // enumeration, prototype
            6 | 13 => self.entries.checked_mul(8)?,
            // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;

    const INT: u32 = 1;

    /// Strings: 1 "outer", 7 "first", 13 "deep".
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0first\0deep\0";
        let types: &[u32] = &[
            // 1: int of four bytes
            0,
            INT << 24,
            4,
            32,
            // 2: unnamed union with `deep`
            0,
            UNION << 24 | 1,
            4,
            13,
            1,
            0,
            // 3: struct outer { int first; union { int deep; }; }
            1,
            STRUCT << 24 | 2,
            8,
            7,
            1,
            0,
            0,
            2,
            32,
        ];
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        let length = u32::try_from(types.len() * 4).unwrap();
        let strings_length = u32::try_from(strings.len()).unwrap();
        for field in [24, 0, length, length, strings_length] {
            data.extend(u32::to_ne_bytes(field));
        }
        for field in types {
            data.extend(field.to_ne_bytes());
        }
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_where_they_are() {
        let structures = Structures::parse(sample()).unwrap();
        assert_eq!(structures.offset("outer", "first"), Some(0));
        assert_eq!(structures.offset("outer", "deep"), Some(4));
        assert_eq!(structures.offset("outer", "none"), None);
        assert_eq!(structures.offset("none", "first"), None);
    }

    #[test]
    fn no_bytes_panic() {
        let whole = sample();
        for end in 0..whole.len() {
            if let Some(cut) = Structures::parse(whole.get(..end).unwrap().to_vec()) {
                cut.offset("outer", "deep");
            }
        }
        for at in 0..whole.len() {
            let mut turned = whole.clone();
            *turned.get_mut(at).unwrap() = 0xff;
            if let Some(turned) = Structures::parse(turned) {
                turned.offset("outer", "deep");
            }
        }
    }
}
