//! What goes wrong again and again, told once for each cause.

use std::error::Error;

/// Of one thing that is tried until it works.
#[derive(Debug, Default)]
pub(crate) struct Complaint(String);

impl Complaint {
    /// The cause, where it is another one than the last time.
    pub(crate) fn of(&mut self, error: &(dyn Error + 'static)) -> Option<&str> {
        let cause = signet_process::start::Report::of(error).cause;
        let is_new = cause != self.0;
        self.0 = cause;
        is_new.then_some(&*self.0)
    }

    /// It works.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn a_cause_is_told_again_once_it_worked_in_between_or_another_came() {
        let mut complaint = Complaint::default();
        let [one, two] = ["one", "two"].map(Error::other);
        assert_eq!(complaint.of(&one), Some("one"));
        assert_eq!(complaint.of(&one), None);
        assert_eq!(complaint.of(&two), Some("two"));
        assert_eq!(complaint.of(&one), Some("one"));
        complaint.clear();
        assert_eq!(complaint.of(&one), Some("one"));
    }
}
