//! The outcome of a pipeline's step. It is returned, so that callers need not derive it from a
//! counter or a state.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// Nothing is pending, or a limit delays it.
    Idle,
    /// A load is proven: the files in place are active.
    Loaded,
    /// The running proxy has confirmed the members that are wanted.
    MembersChanged,
    /// What is active already is in the files as well.
    Written,
    /// The files need another form, or what was taken for active is not: the next step differs.
    Changed(String),
    /// The proxy, or a check, does not take the files. Those of before stay, or are back.
    Rejected(String),
    /// The step failed, and is pending still.
    Failed(String),
    /// The files cannot be loaded now, most often because the proxy is not running: it reads them
    /// when it is started.
    NotRunning(String),
}

impl StepOutcome {
    /// Whether more is routed to by what is wanted than before the step.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Loaded | Self::MembersChanged)
    }

    /// Why what is wanted is not active, unless it is or nothing was tried.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Idle | Self::Loaded | Self::MembersChanged | Self::Written => None,
            Self::Changed(why)
            | Self::Rejected(why)
            | Self::Failed(why)
            | Self::NotRunning(why) => Some(why),
        }
    }
}
