//! Where drawn cases come from: a seeded generator, or the fuzzer's bytes.

/// A source of choices.
pub trait Draw {
    /// Sixteen choices of eight bits.
    fn bits128(&mut self) -> u128;
    /// Eight bits.
    fn bits8(&mut self) -> u8;
    /// Sixteen bits.
    fn bits16(&mut self) -> u16;
    /// Thirty-two bits.
    fn bits32(&mut self) -> u32;

    /// A number below `end`, which is 1 to 256.
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.bits8()) * end / 256
    }

    /// True once in `of` times, about.
    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of some values.
    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): every seed gives another sequence, and the same
/// seed the same one on every machine.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

impl Draw for Random {
    fn bits128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn bits8(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    fn bits16(&mut self) -> u16 {
        (self.next() >> 48) as u16
    }

    fn bits32(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }
}

/// The fuzzer's bytes in their order; zeros behind their end.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// Whether all are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }
}

impl Draw for Bytes<'_> {
    fn bits128(&mut self) -> u128 {
        u128::from_be_bytes(self.array())
    }

    fn bits8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    fn bits16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn bits32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }
}
