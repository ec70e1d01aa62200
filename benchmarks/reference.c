/* Petals' whole rule in C on records that lie in arrays already: what `benchmarks/bench_balance.py` measures Swarmkeel against.
 * No Python object is touched between the records and the answer, so this is about what a machine needs for the rule. */

#include "../src/swarmkeel/balance/kernel.c"

typedef struct {
    int64_t server, block, state, start, end; /* start and end are -1 where the record tells none */
    double throughput;
} Record;

/* Spans as `compute_spans` makes them. Records come by block; `seen` gets the servers in the order in which they are first
 * seen, and their number is given. */
static int64_t compute_spans(const Record *records, int64_t count, int64_t servers, int64_t total_blocks, int64_t *starts,
                             int64_t *ends, int64_t *states, double *throughputs, int64_t *seen)
{
    int64_t found = 0;
    for (int64_t server = 0; server < servers; server++)
        states[server] = 0;
    for (int64_t i = 0; i < count; i++) {
        const Record *record = &records[i];
        int64_t server = record->server;
        if (record->state < 1)
            continue;
        if (states[server] < record->state) {
            if (states[server] == 0)
                seen[found++] = server;
            int told = record->start >= 0 && record->end >= 0;
            starts[server] = told ? record->start : record->block;
            ends[server] = !told ? record->block + 1 : record->end < total_blocks ? record->end : total_blocks;
            states[server] = record->state;
            throughputs[server] = record->throughput;
        } else if (states[server] == record->state && ends[server] <= record->block)
            ends[server] = record->block + 1;
    }
    return found;
}

static double least(const double *values, int64_t count)
{
    double lowest = values[0];
    for (int64_t i = 1; i < count; i++)
        lowest = values[i] < lowest ? values[i] : lowest;
    return lowest;
}

/* Spans, throughputs and all that comes before the search. Servers are numbered in the order of their peer ids; what the
 * search needs is left in starts, lengths and shares, in the order in which the servers were first seen.
 * Gives 0 or 1 for an answer that needs no search, 2 where the search has to go on. */
int64_t before_search(const Record *records, int64_t count, int64_t servers, int64_t total_blocks, int64_t own,
                      double *blocks, int64_t *starts, int64_t *lengths, double *shares, double *initial,
                      int64_t *workspace, double *scratch)
{
    int64_t *of_starts = workspace, *of_ends = of_starts + servers, *states = of_ends + servers, *seen = states + servers;
    double *of_shares = scratch + 2 * total_blocks;
    int64_t found = compute_spans(records, count, servers, total_blocks, of_starts, of_ends, states, of_shares, seen);
    for (int64_t block = 0; block < total_blocks; block++)
        blocks[block] = 0;
    for (int64_t server = 0; server < servers; server++)
        if (states[server])
            for (int64_t block = of_starts[server]; block < of_ends[server]; block++)
                blocks[block] += of_shares[server];
    *initial = least(blocks, total_blocks);
    int64_t start = of_starts[own], length = of_ends[own] - start;
    double share = of_shares[own], epsilon = 1e-3;
    for (int64_t block = start; block < start + length; block++)
        blocks[block] -= share * (1 + epsilon);
    if (*initial > epsilon && least(blocks, total_blocks) <= 0)
        return 0;
    int64_t best = find_best_start(blocks, total_blocks, length, scratch);
    if (best == start)
        return 0;
    for (int64_t block = start; block < start + length; block++)
        blocks[block] += share * epsilon;
    for (int64_t block = best; block < best + length; block++)
        blocks[block] += share;
    of_starts[own] = best;
    of_ends[own] = best + length;
    for (int64_t i = 0; i < found; i++) {
        starts[i] = of_starts[seen[i]];
        lengths[i] = of_ends[seen[i]] - starts[i];
        shares[i] = of_shares[seen[i]];
    }
    return 2;
}

/* One round of the search. */
int64_t one_round(double *blocks, int64_t total_blocks, int64_t *starts, const int64_t *lengths, const double *shares,
                  const int64_t *order, int64_t servers, double *scratch)
{
    return move_in_turn(blocks, total_blocks, starts, lengths, shares, order, servers, 1e-3, scratch);
}
