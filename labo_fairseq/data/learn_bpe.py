"""Joint BPE (Sennrich et al., 2016): the merges of subword-nmt's ``learn_bpe.py``, in less time and memory.

subword-nmt keeps a dictionary of words for every pair of symbols, and looks through all frequent pairs for every merge.
Here words are lists of symbols that merges change in place, a pair has a plain list of words that may hold it, and a
heap gives the most frequent pair.

Frequencies have the peculiarities of subword-nmt's, for they decide which pair is next: pairs that are rare are set
aside, and what they had is lost where they become more frequent later (:meth:`_Frequencies.set_aside`); where one
string comes of two merges, a pair can be counted that is not there (:meth:`_Merger._replace_with_care`).
"""

import heapq
from collections import Counter, defaultdict
from pathlib import Path
from typing import Counter as CounterType
from typing import DefaultDict, Dict, Iterator, List, Mapping, Sequence, Tuple

from tqdm import tqdm

from .parallel_map import map_whole, workers_for

Symbols = Tuple[str, str]

_END = "</w>"
_LEAST = 2  # how often a pair must stand there to be merged
_EVERY = 100  # merges after which rare pairs are set aside


def count_words(paths: Sequence[Path], workers: int = 1) -> CounterType[str]:
    """How often each word stands in text that is tokenized, its words separated by spaces.

    Args:
        workers: processes; a file is read by one of them.

    Raises:
        UserError: one of several processes was killed.
    """
    return sum(map_whole(_count_words, paths, workers_for(paths, workers), "words"), Counter())


def learn_merges(words: Mapping[str, int], number: int) -> Iterator[Symbols]:
    """At most ``number`` merges, the most frequent first; fewer where no pair stands there twice.

    Args:
        words: word → how often it stands in the text; no white space in any.
    """
    merger = _Merger(words)
    frequencies = merger.frequencies
    if not frequencies:
        return
    for step in tqdm(range(number), desc="BPE", unit=" merges"):
        pair = frequencies.most_frequent(step)
        if frequencies[pair] < _LEAST:
            return
        yield pair
        merger.merge(pair)
        if step % _EVERY == 0:
            frequencies.set_aside()


class _Frequencies(Dict[Symbols, int]):
    """Pair → frequency, but for rare ones: those below a threshold are set aside from time to time."""

    def __init__(self) -> None:
        super().__init__()
        self._rare: Dict[Symbols, int] = {}
        self._threshold = 0.0
        self._heap: List[Tuple[int, str, str, Symbols]] = []
        self._backwards: Dict[str, str] = {}

    def start(self) -> None:
        """All frequencies are known."""
        self._rare = dict(self)
        self._threshold = max(self.values(), default=0) / 10
        self._build_heap()

    def change(self, pair: Symbols, difference: int) -> None:
        self[pair] = frequency = self.get(pair, 0) + difference
        if frequency >= self._threshold:
            heapq.heappush(self._heap, self._entry(pair, frequency))

    def most_frequent(self, step: int) -> Symbols:
        """Of several, the last in the order of their strings."""
        heap = self._heap
        while heap:
            frequency, _, _, pair = heap[0]
            if self.get(pair) == -frequency:
                return pair
            heapq.heappop(heap)  # it has another by now
        # all that were set aside may be more frequent
        self.set_aside()
        self.clear()
        self.update(self._rare)
        most = max(self.values())
        self._threshold = most * step / (step + 10000.0)
        self.set_aside()
        self._build_heap()
        return min(self._entry(pair, frequency) for pair, frequency in self.items() if frequency == most)[-1]

    def set_aside(self) -> None:
        """Keep frequent pairs alone.

        A pair that was set aside before, and has become more frequent since, loses what it had then.
        """
        rare = [(pair, frequency) for pair, frequency in self.items() if frequency < self._threshold]
        for pair, frequency in rare:
            del self[pair]
            self._rare[pair] = frequency + self._rare.get(pair, 0) if frequency < 0 else frequency

    def _build_heap(self) -> None:
        self._heap = [self._entry(*item) for item in self.items() if item[1] >= self._threshold]
        heapq.heapify(self._heap)

    def _entry(self, pair: Symbols, frequency: int) -> Tuple[int, str, str, Symbols]:
        """The smaller, the more frequent; then, the later in the order of strings."""
        first, second = pair
        return -frequency, self._reversed(first), self._reversed(second), pair

    def _reversed(self, symbol: str) -> str:
        """A string for each symbol, in the opposite order."""
        if symbol not in self._backwards:
            # the end is last of all letters: of a word and its beginning, the word comes first
            self._backwards[symbol] = "".join(chr(0x10FFFF - ord(letter)) for letter in symbol) + "\U0010ffff"
        return self._backwards[symbol]


class _Merger:
    """Words as lists of symbols, and which words may hold a pair."""

    def __init__(self, words: Mapping[str, int]) -> None:
        self.frequencies = _Frequencies()
        self._words: List[List[str]] = []
        self._counts: List[int] = []
        #: pair → numbers of all words that hold it, of some more than once, and of some that held it once
        self._holders: DefaultDict[Symbols, List[int]] = defaultdict(list)
        #: pair → word → how much subword-nmt's count of the pair in the word exceeds the true one, where it does
        self._excess: DefaultDict[Symbols, Dict[int, int]] = defaultdict(dict)
        symbols: Dict[str, str] = {}  # one string object for each
        initial: DefaultDict[Symbols, int] = defaultdict(int)
        for word, count in words.items():
            if len(word) == 1:
                continue
            word_symbols = [symbols.setdefault(letter, letter) for letter in (*word[:-1], word[-1] + _END)]
            number = len(self._words)
            self._words.append(word_symbols)
            self._counts.append(count)
            for pair in zip(word_symbols, word_symbols[1:]):
                initial[pair] += count
                self._holders[pair].append(number)
        self._symbols = set(symbols)
        self.frequencies.update(initial)
        self.frequencies.start()

    def merge(self, pair: Symbols) -> None:
        """Make one symbol of ``pair`` in every word."""
        merged = "".join(pair)
        if merged in self._symbols or pair[0] == pair[1] or pair in self._excess:
            self._replace_with_care(pair, merged)
        else:
            self._replace(pair, merged)
        self._symbols.add(merged)
        self.frequencies[pair] = 0

    def _replace(self, pair: Symbols, merged: str) -> None:
        """Where each ``merged`` in a word is new, and no two of ``pair`` overlap."""
        first, second = pair
        before: DefaultDict[str, int] = defaultdict(int)
        after: DefaultDict[str, int] = defaultdict(int)
        words_before: DefaultDict[str, List[int]] = defaultdict(list)
        words_after: DefaultDict[str, List[int]] = defaultdict(list)
        doubled, words_doubled = 0, []
        for number in set(self._holders.pop(pair, ())):
            word = self._words[number]
            if first not in word:
                continue
            count = self._counts[number]
            start = 0
            last = -1  # where the one before was
            while True:
                try:
                    start = word.index(first, start)
                except ValueError:
                    break
                if start + 1 == len(word):
                    break
                if word[start + 1] != second:
                    start += 1
                    continue
                if start:
                    if start - 1 == last:
                        doubled += count
                        words_doubled.append(number)
                    else:
                        left = word[start - 1]
                        before[left] += count
                        words_before[left].append(number)
                word[start : start + 2] = (merged,)
                last = start
                start += 1
                if start < len(word) and word[start : start + 2] != [first, second]:
                    right = word[start]
                    after[right] += count
                    words_after[right].append(number)
        change = self.frequencies.change
        for left, count in before.items():
            change((left, first), -count)
            change((left, merged), count)
            self._holders[left, merged] += words_before[left]
        for right, count in after.items():
            change((second, right), -count)
            change((merged, right), count)
            self._holders[merged, right] += words_after[right]
        if words_doubled:
            change((second, first), -doubled)
            change((merged, merged), doubled)
            self._holders[merged, merged] += words_doubled

    def _replace_with_care(self, pair: Symbols, merged: str) -> None:
        """The same where words can hold ``merged`` already, or where two of ``pair`` can overlap.

        Every ``merged`` in a word then counts as new, and of overlapping ones some do not count. What subword-nmt takes
        for the number of a pair in a word says later whether it looks at the word, so the difference is kept.
        """
        first, second = pair
        excess = self._excess.pop(pair, {})
        for number in set(self._holders.pop(pair, ())):
            old = self._words[number]
            true = Counter(zip(old, old[1:]))
            if true[pair] + excess.get(number, 0) < 1:
                if true[pair]:  # it stays, and counts as 0
                    self._excess[pair][number] = -true[pair]
                    self._holders[pair].append(number)
                continue
            new = _merge_in_word(old, first, second, merged)
            changes = list(_changes(old, new, first, second, merged))
            believed: CounterType[Symbols] = Counter()
            for changed, difference in changes:
                self.frequencies.change(changed, difference * self._counts[number])
                believed[changed] += difference
            self._words[number] = new
            now = Counter(zip(new, new[1:]))
            for key in {*true, *now, *believed}:
                known = 0 if key == pair else true[key] + self._excess.get(key, {}).get(number, 0)
                difference = known + believed[key] - now[key]
                if difference:
                    self._excess[key][number] = difference
                elif key in self._excess:
                    self._excess[key].pop(number, None)
                    if not self._excess[key]:
                        del self._excess[key]
                if now[key] > true[key] or believed[key] > 0:
                    self._holders[key].append(number)


def _merge_in_word(word: List[str], first: str, second: str, merged: str) -> List[str]:
    new: List[str] = []
    position = 0
    while position < len(word):
        if word[position] == first and word[position + 1 : position + 2] == [second]:
            new.append(merged)
            position += 2
        else:
            new.append(word[position])
            position += 1
    return new


def _changes(old: List[str], new: List[str], first: str, second: str, merged: str) -> Iterator[Tuple[Symbols, int]]:
    """Pairs that subword-nmt takes for gone (−1) and new (+1) in a word, ``old`` before a merge and ``new`` after."""
    position = 0
    while position < len(old) - 1:
        if old[position] != first or old[position + 1] != second:
            position += 1
            continue
        if position:
            yield (old[position - 1], first), -1
        following = old[position + 2 : position + 4]
        if following and following != [first, second]:
            yield (second, following[0]), -1
        position += 2
    for position, symbol in enumerate(new):
        if symbol != merged:
            continue
        if position:
            yield (new[position - 1], merged), 1
        if position < len(new) - 1 and new[position + 1] != merged:
            yield (merged, new[position + 1]), 1


def _count_words(path: Path) -> CounterType[str]:
    counts: CounterType[str] = Counter()
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            counts.update(line.strip("\r\n ").split(" "))
    del counts[""]
    return counts
