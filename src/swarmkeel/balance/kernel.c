/* One round of the search for a steady placement, see `imbalance.py`; `selection.py` says why the best window is the best.
 *
 * The same operations on the same IEEE doubles in the same order as numpy does them there, so that the answers are the same
 * to the bit: compile without -ffast-math and with -ffp-contract=off. One limited API for all Pythons from 3.11 on. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "doubles would be computed with more digits than they have, and so with other bits than elsewhere"
#endif

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Whether the `count` values entered, once sorted, are lexicographically smaller than those left behind. */
static int entered_is_smaller(const double *left, const double *entered, int64_t count, double *scratch)
{
    double *of_left = scratch, *of_entered = scratch + count;
    memcpy(of_left, left, (size_t)count * sizeof(double));
    memcpy(of_entered, entered, (size_t)count * sizeof(double));
    qsort(of_left, (size_t)count, sizeof(double), by_value);
    qsort(of_entered, (size_t)count, sizeof(double), by_value);
    for (int64_t i = 0; i < count; i++)
        if (of_left[i] != of_entered[i])
            return of_entered[i] < of_left[i];
    return 0;
}

/* The window of `length` blocks whose sorted throughputs are lexicographically smallest; ties go to the lowest start. */
static int64_t find_best_start(const double *throughputs, int64_t total_blocks, int64_t length, double *scratch)
{
    double lowest = throughputs[0];
    for (int64_t block = 1; block < total_blocks; block++)
        lowest = throughputs[block] < lowest ? throughputs[block] : lowest;
    int64_t first = 0, last = total_blocks - 1;
    while (throughputs[first] != lowest)
        first++;
    while (throughputs[last] != lowest)
        last--;
    int64_t low = 0, high = total_blocks - length;
    int64_t earliest = last - length + 1, latest = first;
    if (earliest <= latest) {
        low = earliest > low ? earliest : low;
        high = latest < high ? latest : high;
    }
    int64_t best = low;
    double lowest_left = INFINITY, lowest_entered = INFINITY;
    for (int64_t start = low + 1; start <= high; start++) {
        double left = throughputs[start - 1], entered = throughputs[start - 1 + length];
        if (left == entered)
            continue;
        lowest_left = left < lowest_left ? left : lowest_left;
        lowest_entered = entered < lowest_entered ? entered : lowest_entered;
        if (lowest_entered > lowest_left)
            continue;
        if (lowest_entered < lowest_left ||
            entered_is_smaller(throughputs + best, throughputs + best + length, start - best, scratch)) {
            best = start;
            lowest_left = lowest_entered = INFINITY;
        }
    }
    return best;
}

/* Let the servers take their best places in turn; gives how many have moved. */
static int64_t move_in_turn(double *throughputs, int64_t total_blocks, int64_t *starts, const int64_t *lengths,
                            const double *shares, const int64_t *order, int64_t servers, double epsilon,
                            double *scratch)
{
    int64_t moved = 0;
    for (int64_t turn = 0; turn < servers; turn++) {
        int64_t server = order[turn], length = lengths[server], start = starts[server];
        double share = shares[server], surplus = share * epsilon, with_surplus = share * (1 + epsilon);
        for (int64_t block = start; block < start + length; block++)
            throughputs[block] -= with_surplus;
        int64_t best = find_best_start(throughputs, total_blocks, length, scratch);
        for (int64_t block = start; block < start + length; block++)
            throughputs[block] += surplus;
        for (int64_t block = best; block < best + length; block++)
            throughputs[block] += share;
        if (best != start) {
            starts[server] = best;
            moved++;
        }
    }
    return moved;
}

enum { THROUGHPUTS, STARTS, LENGTHS, SHARES, ORDER, ARRAYS };

static PyObject *py_move_in_turn(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *objects[ARRAYS];
    Py_buffer views[ARRAYS];
    double epsilon;
    PyObject *result = NULL;
    int got = 0;
    if (!PyArg_ParseTuple(args, "OOOOOd", &objects[THROUGHPUTS], &objects[STARTS], &objects[LENGTHS],
                          &objects[SHARES], &objects[ORDER], &epsilon))
        return NULL;
    for (; got < ARRAYS; got++) {
        int flags = got == THROUGHPUTS || got == STARTS ? PyBUF_CONTIG : PyBUF_CONTIG_RO;
        if (PyObject_GetBuffer(objects[got], &views[got], flags) < 0)
            goto end;
        if (views[got].itemsize != 8) {
            got++;
            PyErr_SetString(PyExc_ValueError, "arrays of eight bytes an item are needed");
            goto end;
        }
    }
    int64_t total_blocks = views[THROUGHPUTS].len / 8, servers = views[ORDER].len / 8;
    int64_t *starts = views[STARTS].buf;
    const int64_t *lengths = views[LENGTHS].buf, *order = views[ORDER].buf;
    if (views[STARTS].len / 8 != servers || views[LENGTHS].len / 8 != servers || views[SHARES].len / 8 != servers) {
        PyErr_SetString(PyExc_ValueError, "the arrays of the servers are not equally long");
        goto end;
    }
    for (int64_t i = 0; i < servers; i++)
        if (order[i] < 0 || order[i] >= servers || starts[i] < 0 || lengths[i] < 1 || lengths[i] > total_blocks ||
            starts[i] > total_blocks - lengths[i]) {
            PyErr_SetString(PyExc_ValueError, "a server stands outside of the blocks");
            goto end;
        }
    double *scratch = PyMem_Malloc((size_t)(2 * total_blocks + 1) * sizeof(double));
    if (scratch == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    int64_t moved;
    Py_BEGIN_ALLOW_THREADS
    moved = move_in_turn(views[THROUGHPUTS].buf, total_blocks, starts, lengths, views[SHARES].buf, order, servers,
                         epsilon, scratch);
    Py_END_ALLOW_THREADS
    PyMem_Free(scratch);
    result = PyLong_FromLongLong(moved);
end:
    while (got > 0)
        PyBuffer_Release(&views[--got]);
    return result;
}

static PyMethodDef methods[] = {
    {"move_in_turn", py_move_in_turn, METH_VARARGS, "Let the servers take their best places in turn; gives how many have moved."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "What the search of balance/imbalance.py spends its time in.", 0, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
