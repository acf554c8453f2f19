//! Recursive length prefixes as transactions of Ethereum are written (yellow paper, appendix B), in
//! their only proper form: the shortest one.

/// One item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list, by what it holds.
    List(&'a [u8]),
}

/// The items of a list that is all of `input`. `None`: it is none, or has more than `most`.
pub(crate) fn list(input: &[u8], most: usize) -> Option<Vec<Item<'_>>> {
    let (Item::List(mut rest), []) = item(input)? else {
        return None;
    };
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (own, after) = item(rest)?;
        items.push(own);
        if items.len() > most {
            return None;
        }
        rest = after;
    }
    Some(items)
}

/// The first item, and what is behind it.
fn item(input: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (first, rest) = input.split_first()?;
    let is_list = *first >= 0xc0;
    let short = first.wrapping_sub(if is_list { 0xc0 } else { 0x80 });
    let (held, after) = match first {
        0..=0x7f => input.split_at_checked(1)?,
        _ if short <= 55 => {
            let (held, after) = rest.split_at_checked(usize::from(short))?;
            // A byte that stands for itself needs no length.
            if !is_list && matches!(held, [0..=0x7f]) {
                return None;
            }
            (held, after)
        }
        _ => {
            let digits = usize::from(short.wrapping_sub(55));
            let (length, rest) = rest.split_at_checked(digits)?;
            if digits > 4 || length.first() == Some(&0) {
                return None;
            }
            let length = length
                .iter()
                .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
            let length = usize::try_from(length).ok().filter(|it| *it > 55)?;
            rest.split_at_checked(length)?
        }
    };
    let own = if is_list {
        Item::List(held)
    } else {
        Item::Bytes(held)
    };
    Some((own, after))
}

#[cfg(test)]
mod tests {
    use super::{Item, item, list};

    #[test]
    fn only_the_shortest_form() {
        for (bytes, own, behind) in [
            (&[0x7f][..], Item::Bytes(&[0x7f]), &[][..]),
            (&[0x80], Item::Bytes(&[]), &[]),
            (&[0x81, 0x80, 1], Item::Bytes(&[0x80]), &[1]),
            (&[0x82, 0, 0], Item::Bytes(&[0, 0]), &[]),
            (&[0xc0, 0], Item::List(&[]), &[0]),
            (&[0xc1, 0x80], Item::List(&[0x80]), &[]),
        ] {
            assert_eq!(item(bytes), Some((own, behind)), "{bytes:x?}");
        }
        let long = [&[0xb8, 56][..], &[1; 56]].concat();
        assert_eq!(item(&long), Some((Item::Bytes(&[1; 56]), &[][..])));
        let long = [&[0xf9, 1, 0][..], &[1; 256]].concat();
        assert_eq!(item(&long), Some((Item::List(&[1; 256]), &[][..])));
        for bytes in [
            &[][..],
            &[0x81, 0x7f],
            &[0x81],
            &[0x83, 1, 2],
            &[0xb8, 2, 1, 1],
            &[0xb8],
            &[0xb9, 0, 60],
            &[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xbb, 0xff, 0xff, 0xff, 0xff],
            &[0xc2, 1],
        ] {
            assert_eq!(item(bytes), None, "{bytes:x?}");
        }
        let zero = [&[0xb9, 0, 60][..], &[1; 60]].concat();
        assert_eq!(item(&zero), None);
    }

    #[test]
    fn lists_are_whole() {
        assert_eq!(
            list(&[0xc2, 1, 2], 2),
            Some(vec![Item::Bytes(&[1]), Item::Bytes(&[2])])
        );
        for bytes in [&[0xc2, 1, 2, 3][..], &[0xc1, 0x81], &[1], &[0xc3, 1, 2, 3]] {
            assert_eq!(list(bytes, 2), None, "{bytes:x?}");
        }
    }
}
