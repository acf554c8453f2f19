//! Why a server is left as it is. Pure.

/// Why nothing was put in front of a server, or taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It starts nothing.
    #[error("it starts no program of this host")]
    Nothing,
    /// A key twice.
    #[error("its command or its arguments stand there twice; take one of them out")]
    Twice,
    /// Arguments that are none.
    #[error("its arguments are no list; write them as one, or leave them away")]
    NoList,
    /// A text over several lines.
    #[error("its command is written over several lines; write it in one")]
    Lines,
    /// It would change something else.
    #[error(
        "in the way it is written there, another value would change with it; write its command \
         and arguments out, without aliases and anchors"
    )]
    Shared,
    /// It is not what was put there.
    #[error("the agent is in front of it in another way than `wrap` puts it; edit it by hand")]
    OtherWay,
    /// The text is not the one that was looked at.
    #[error("the file has changed meanwhile; try again")]
    Changed,
    /// The file is none.
    #[error("the file cannot be read as what its name says")]
    Unread,
}
