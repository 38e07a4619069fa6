"""What one subscriber got, held against what was published: by publisher and topic, each numbered from 1 without a hole."""

COUNTS = ("delivered", "missing", "doubled", "misordered", "gapped", "gaps", "foreign")


class Tally:
    """A number that was jumped over is a hole. It is missing unless a gap was said before the next one came."""

    __slots__ = ("next", "holes", "excused", "delivered", "doubled", "misordered", "gaps", "foreign")

    def __init__(self, keys):
        self.next = dict.fromkeys(keys, 1)
        # Whether a gap had been said, by key and number.
        self.holes = {}
        self.excused = set()
        self.delivered = self.doubled = self.misordered = self.gaps = self.foreign = 0

    def gap(self):
        """It is for all topics of a subscriber: each may have lost something above the position where it was."""
        self.gaps += 1
        self.excused.update(self.next)

    def message(self, key, number):
        """Whether it is one more of those that it should get."""
        expected = self.next.get(key)
        if expected is None:
            self.foreign += 1
            return False
        if number < expected:
            if self.holes.pop((key, number), None) is None:
                self.doubled += 1
                return False
            self.misordered += 1
            self.delivered += 1
            return True
        if number > expected:
            excused = key in self.excused
            for hole in range(expected, number):
                self.holes[key, hole] = excused
        self.excused.discard(key)
        self.next[key] = number + 1
        self.delivered += 1
        return True

    def left(self, published):
        """How many have not come that were published, wherever they stand."""
        tail = sum(max(0, published.get(key, 0) + 1 - expected) for key, expected in self.next.items())
        return tail + len(self.holes)

    def counts(self, published):
        """As if nothing more came."""
        said = {name: getattr(self, name) for name in ("delivered", "doubled", "misordered", "gaps", "foreign")}
        said["gapped"] = sum(self.holes.values())
        said["missing"] = len(self.holes) - said["gapped"]
        for key, expected in self.next.items():
            said["gapped" if key in self.excused else "missing"] += max(0, published.get(key, 0) + 1 - expected)
        return said


def self_test():
    """Each fault is told from the others."""
    def of(numbers, published):
        tally = Tally([7])
        for number in numbers:
            tally.gap() if number == 0 else tally.message(7, number)
        return {name: count for name, count in tally.counts({7: published}).items() if count}

    cases = [
        ([1, 2, 3], 3, {"delivered": 3}),
        ([1, 3], 3, {"delivered": 2, "missing": 1}),
        ([2, 3], 3, {"delivered": 2, "missing": 1}),
        ([1, 2], 4, {"delivered": 2, "missing": 2}),
        ([1, 2, 2, 3], 3, {"delivered": 3, "doubled": 1}),
        ([1, 3, 2, 3], 3, {"delivered": 3, "misordered": 1, "doubled": 1}),
        ([1, 0, 4], 4, {"delivered": 2, "gapped": 2, "gaps": 1}),
        ([1, 0, 2, 4], 4, {"delivered": 3, "missing": 1, "gaps": 1}),
        ([1, 0], 3, {"delivered": 1, "gapped": 2, "gaps": 1}),
        ([1, 0, 4, 3], 4, {"delivered": 3, "gapped": 1, "gaps": 1, "misordered": 1}),
        # Its outcome was not known, and it was published after all.
        ([1, 2], 1, {"delivered": 2}),
    ]
    wrong = [(numbers, of(numbers, published), wanted) for numbers, published, wanted in cases if of(numbers, published) != wanted]
    two = Tally([1, 2])
    two.message(1, 1)
    two.gap()
    two.message(2, 3)
    two.message(1, 2)
    two.message(3, 1)
    counts = two.counts({1: 2, 2: 3})
    if (counts["delivered"], counts["gapped"], counts["missing"], counts["foreign"]) != (3, 2, 0, 1):
        wrong.append(counts)
    return wrong
