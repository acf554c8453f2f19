//! Netlink messages and their attributes (`netlink(7)`, `include/uapi/linux/netlink.h`), from
//! the bytes that the kernel sends. Pure.

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `NLA_TYPE_MASK`, `include/uapi/linux/netlink.h`: without the flags for nested ones.
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// The value of the first attribute of a kind (`include/uapi/linux/netlink.h`, `nlattr`).
pub fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(array::<2>(attributes, 0)?));
        let found = u16::from_ne_bytes(array::<2>(attributes, 2)?);
        if found & ATTRIBUTE_KIND == kind {
            return attributes.get(4..length);
        }
        if length < 4 {
            return None;
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// One netlink message.
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: that of the request which it answers.
    pub sequence: u32,
    /// What is behind the header.
    pub body: &'a [u8],
}

/// The messages of a datagram; stops at the first one that is not whole.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32::from_ne_bytes(array::<4>(self.0, 0)?)).ok()?;
        let kind = u16::from_ne_bytes(array::<2>(self.0, 4)?);
        let flags = u16::from_ne_bytes(array::<2>(self.0, 6)?);
        let sequence = u32::from_ne_bytes(array::<4>(self.0, 8)?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind,
            flags,
            sequence,
            body,
        })
    }
}

/// `N` bytes at an offset.
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_bytes_end() {
        for length in 0..64 {
            let bytes = vec![length; usize::from(length)];
            assert!(Messages(&bytes).count() <= 64);
        }
    }
}
