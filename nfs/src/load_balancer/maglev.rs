//! Maglev's table, by which new flows find a backend: Eisenbud and others, "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI 2016, section 3.4.
//!
//! Each backend has an order of its own in which it would take the table's places, and all take turns. So
//! equal backends have equally many places but for one, few places change hands when a backend comes or
//! goes, and who knows the same backends has the same table. Backends of different weights take turns as often as
//! their weights say.

use nf_framework::HashKey;

/// A backend that takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    /// The first place that it would take.
    offset: u32,
    /// How far the next one is, from 1 to the size less 1.
    skip: u32,
    /// Not 0.
    weight: u32,
}

impl Member {
    /// Of what identifies a backend on all instances.
    pub(super) fn new(identity: &[u8], weight: u32, key: &HashKey, size: u32) -> Self {
        let hash = key.hash(identity);
        let below = |value: u64, limit: u32| u32::try_from(value % u64::from(limit)).unwrap_or(0);
        Self { offset: below(hash >> 32, size), skip: 1 + below(hash & 0xffff_ffff, size - 1), weight }
    }
}

/// A table of a prime size: for each place the number of the member that has it. Empty without members.
///
/// It takes some milliseconds: never on a worker.
pub(super) fn fill(members: &[Member], size: u32) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    let Some(heaviest) = members.iter().map(|member| member.weight).max() else { return Vec::new() };
    let mut table = vec![FREE; size as usize];
    let mut next: Vec<u32> = members.iter().map(|member| member.offset).collect();
    // Who has gathered as much as the heaviest gets at once may take a place.
    let mut credit = vec![0_u32; members.len()];
    let mut free = size;
    loop {
        for (number, member) in (0..FREE).zip(members) {
            let (credit, next) = (&mut credit[usize::from(number)], &mut next[usize::from(number)]);
            *credit += member.weight;
            if *credit < heaviest {
                continue;
            }
            *credit -= heaviest;
            loop {
                let place = &mut table[*next as usize];
                *next += member.skip;
                if *next >= size {
                    *next -= size;
                }
                if *place == FREE {
                    *place = number;
                    break;
                }
            }
            free -= 1;
            if free == 0 {
                return table;
            }
        }
    }
}

/// Whether a number is a prime, as the size of a table has to be: then each skip comes by all its places.
pub(super) fn is_prime(number: u32) -> bool {
    let number = u64::from(number);
    number >= 2 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u32, weight: impl Fn(u32) -> u32, size: u32) -> Vec<Member> {
        let key = HashKey::from_seed(0);
        (0..count).map(|number| Member::new(&number.to_be_bytes(), weight(number), &key, size)).collect()
    }

    fn places(table: &[u16], member: u16) -> usize {
        table.iter().filter(|number| **number == member).count()
    }

    /// The places that changed hands though who had them is still there, in percent of all.
    fn unforced(count: u32, down: u32, size: u32) -> f64 {
        let all = members(count, |_| 1, size);
        let before = fill(&all, size);
        // Those that go are spread over the numbers.
        let gone = |number: u16| {
            down > 0 && u32::from(number) % (count / down) == 0 && u32::from(number) / (count / down) < down
        };
        let (left, stay): (Vec<u16>, Vec<Member>) = (0..).zip(&all).filter(|(number, _)| !gone(*number)).unzip();
        assert_eq!(left.len(), (count - down) as usize);
        let after = fill(&stay, size);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| !gone(**before) && left[usize::from(**after)] != **before);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let percent = moved.count() as f64 * 100.0 / f64::from(size);
        percent
    }

    #[test]
    fn l01_the_papers_example_comes_out_as_it_is_printed() {
        let of = |members: &[(u32, u32)]| {
            let members: Vec<_> = members.iter().map(|&(offset, skip)| Member { offset, skip, weight: 1 }).collect();
            fill(&members, 7)
        };
        assert_eq!(of(&[(3, 4), (0, 2), (3, 1)]), [1, 0, 1, 0, 2, 2, 0]);
        // Without the second one; the third is the second now.
        assert_eq!(of(&[(3, 4), (3, 1)]), [0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[(6, 6)]), [0; 7]);
    }

    #[test]
    fn l02_equal_weights_differ_by_one_place_at_most() {
        for (count, size) in [(1, 65537), (3, 7), (10, 65537), (100, 65537), (400, 65537), (1000, 65537), (7, 5003)] {
            let table = fill(&members(count, |_| 1, size), size);
            let counts: Vec<_> = (0..).take(count as usize).map(|member| places(&table, member)).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{count} backends in {size} places: {least} to {most}");
            // Whatever the weight is, as long as it is the same.
            assert_eq!(fill(&members(count, |_| 1000, size), size), table);
        }
    }

    #[test]
    fn l03_more_than_a_hundred_places_for_each_keep_the_load_within_a_percent() {
        let table = fill(&members(655, |_| 1, 65537), 65537);
        let ideal = 65537.0 / 655.0;
        for member in 0..655 {
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let share = places(&table, member) as f64 / ideal;
            assert!((0.99..=1.01).contains(&share), "{member} has {share} of its share");
        }
    }

    #[test]
    fn l04_few_places_move_between_backends_that_stay() {
        // Backends, how many of them go, places, the percentage that a plain implementation was measured to move, and
        // what ours is held to.
        for (count, down, size, measured, most) in [
            (10, 1, 65537, 0.35, 0.7),
            (100, 1, 65537, 0.57, 0.8),
            (1000, 1, 65537, 0.58, 0.8),
            (1000, 5, 65537, 1.78, 2.2),
            (1000, 10, 65537, 2.29, 2.8),
        ] {
            let moved = unforced(count, down, size);
            assert!(moved <= most, "{down} of {count} go, {size} places: {moved:.2} % move, measured {measured} %");
        }
    }

    #[test]
    fn l16_places_are_in_the_proportion_of_weights() {
        for (weights, size) in [
            (&[1, 1, 2][..], 65537),
            (&[1, 10, 100, 1000], 65537),
            (&[3, 5, 7, 11, 13], 65537),
            (&[65535, 1, 65535], 65537),
            (&[500, 1000, 1000], 5003),
        ] {
            let count = u32::try_from(weights.len()).unwrap();
            let table = fill(&members(count, |number| weights[number as usize], size), size);
            let sum: u32 = weights.iter().sum();
            for (member, weight) in (0..).zip(weights) {
                let ideal = f64::from(size) * f64::from(*weight) / f64::from(sum);
                #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
                let difference = (places(&table, member) as f64 - ideal).abs();
                assert!(difference <= 2.0, "{weights:?}: {member} is {difference} from its {ideal} places");
            }
        }
    }

    #[test]
    fn primes_are_told_from_others() {
        for (number, expected) in [
            (0, false),
            (1, false),
            (2, true),
            (7, true),
            (65536, false),
            (65537, true),
            (655_373, true),
            (5_000_011, true),
            (65535, false),
        ] {
            assert_eq!(is_prime(number), expected, "{number}");
        }
    }
}
