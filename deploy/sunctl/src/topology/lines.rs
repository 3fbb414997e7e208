//! The difference of two texts, line by line, in the form of `diff -u`. Pure.

/// Nothing when they are the same.
pub(super) fn diff(before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let steps = steps(&before, &after);
    let changed: Vec<usize> = (0..steps.len()).filter(|&at| !matches!(steps[at], Step::Kept(..))).collect();
    let mut text = String::new();
    let mut from = 0;
    while from < changed.len() {
        let mut to = from;
        // Changes whose surroundings touch are told together.
        while to + 1 < changed.len() && changed[to + 1] - changed[to] <= 2 * CONTEXT {
            to += 1;
        }
        let hunk = changed[from].saturating_sub(CONTEXT)..(changed[to] + CONTEXT + 1).min(steps.len());
        tell(&steps[hunk], &before, &after, &mut text);
        from = to + 1;
    }
    text
}

/// What happens to a line; the numbers are its places in the two texts.
#[derive(Clone, Copy, Debug)]
enum Step {
    Kept(usize, usize),
    Removed(usize, usize),
    Added(usize, usize),
}

impl Step {
    const fn places(self) -> (usize, usize) {
        let (Self::Kept(old, new) | Self::Removed(old, new) | Self::Added(old, new)) = self;
        (old, new)
    }
}

fn tell(hunk: &[Step], before: &[&str], after: &[&str], text: &mut String) {
    let Some((old, new)) = hunk.first().map(|step| step.places()) else { return };
    let removed = hunk.iter().filter(|step| !matches!(step, Step::Added(..))).count();
    let added = hunk.iter().filter(|step| !matches!(step, Step::Removed(..))).count();
    *text += &format!("@@ -{},{removed} +{},{added} @@\n", old + 1, new + 1);
    for step in hunk {
        let (mark, line) = match *step {
            Step::Kept(old, _) => (' ', before[old]),
            Step::Removed(old, _) => ('-', before[old]),
            Step::Added(_, new) => ('+', after[new]),
        };
        *text += &format!("{mark}{line}\n");
    }
}

fn steps(before: &[&str], after: &[&str]) -> Vec<Step> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let rest = before[head..].iter().rev().zip(after[head..].iter().rev());
    let tail = rest.take_while(|(a, b)| a == b).count();
    let (old_end, new_end) = (before.len() - tail, after.len() - tail);
    let mut steps: Vec<Step> = (0..head).map(|at| Step::Kept(at, at)).collect();
    let middle = middle(&before[head..old_end], &after[head..new_end]);
    steps.extend(middle.into_iter().map(|step| match step {
        Step::Kept(old, new) => Step::Kept(old + head, new + head),
        Step::Removed(old, new) => Step::Removed(old + head, new + head),
        Step::Added(old, new) => Step::Added(old + head, new + head),
    }));
    steps.extend((0..tail).map(|at| Step::Kept(old_end + at, new_end + at)));
    steps
}

/// By the longest common subsequence; where that is too large to work out, all of it is replaced.
fn middle(before: &[&str], after: &[&str]) -> Vec<Step> {
    let (rows, columns) = (before.len(), after.len());
    if rows.saturating_mul(columns) > CELLS_MAX {
        let removed = (0..rows).map(|old| Step::Removed(old, 0));
        return removed.chain((0..columns).map(|new| Step::Added(rows, new))).collect();
    }
    // Of what follows from (row, column) on.
    let mut common = vec![0_u32; (rows + 1) * (columns + 1)];
    let at = |row: usize, column: usize| row * (columns + 1) + column;
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[at(row, column)] = if before[row] == after[column] {
                common[at(row + 1, column + 1)] + 1
            } else {
                common[at(row + 1, column)].max(common[at(row, column + 1)])
            };
        }
    }
    let (mut row, mut column, mut steps) = (0, 0, Vec::with_capacity(rows + columns));
    while row < rows || column < columns {
        let remove = column == columns || (row < rows && common[at(row + 1, column)] >= common[at(row, column + 1)]);
        if row < rows && column < columns && before[row] == after[column] {
            steps.push(Step::Kept(row, column));
            (row, column) = (row + 1, column + 1);
        } else if remove && row < rows {
            steps.push(Step::Removed(row, column));
            row += 1;
        } else {
            steps.push(Step::Added(row, column));
            column += 1;
        }
    }
    steps
}

/// Lines around a change.
const CONTEXT: usize = 3;
/// 4,000 changed lines on either side, 64 MB.
const CELLS_MAX: usize = 16_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_difference_is_told_with_what_is_around_it() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        assert_eq!(diff(before, before), "");
        assert_eq!(
            diff(before, &before.replace("5\n", "five\n")),
            "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
        );
        assert_eq!(diff("", "a\n"), "@@ -1,0 +1,1 @@\n+a\n");
        let ends = before.replace("1\n", "").replace("9\n", "9\n10\n");
        assert_eq!(diff(before, &ends), "@@ -1,4 +1,3 @@\n-1\n 2\n 3\n 4\n@@ -7,3 +6,4 @@\n 7\n 8\n 9\n+10\n");
    }

    proptest! {
        #[test]
        fn the_steps_lead_from_one_text_to_the_other(before in "[ab\n]{0,40}", after in "[ab\n]{0,40}") {
            let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
            let steps = steps(&before, &after);
            let old: Vec<&str> = steps.iter().filter(|step| !matches!(step, Step::Added(..))).map(|step| before[step.places().0]).collect();
            let new: Vec<&str> = steps.iter().filter(|step| !matches!(step, Step::Removed(..))).map(|step| after[step.places().1]).collect();
            prop_assert_eq!(old, before);
            prop_assert_eq!(new, after);
        }
    }
}
