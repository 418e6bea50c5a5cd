import statistics
import time

import torch

from tutelage.similarity.alignment import alignment, alignment_pair

torch.set_num_threads(1)


def straight(x, y, rows):
    k, l = torch.matmul(x, x.T), torch.matmul(y, y.T)
    if rows:
        k = k / torch.sqrt(torch.diag(k)).unsqueeze(1)
        l = l / torch.sqrt(torch.diag(l)).unsqueeze(1)
    cross = torch.trace(torch.matmul(k, l.T))
    sx = torch.trace(torch.matmul(k, k.T))
    sy = torch.trace(torch.matmul(l, l.T))
    return cross / torch.sqrt(sx * sy)


def official(s, t, both, rows):
    loss = -10 * straight(t, s, rows)
    if both:
        loss = loss - 10 * straight(t.T, s.T, rows)
    return loss


def ours(s, t, both, rows):
    sc = "rows" if rows else None
    if both:
        a, b = alignment_pair(s, t, scale=sc)
        return 10 * (1 - a) + 10 * (1 - b)
    return 10 * (1 - alignment(s, t, scale=sc))


def run(f, s, t, both, rows, n):
    s0 = time.process_time()
    for _ in range(n):
        s.grad = None
        f(s, t, both, rows).backward()
    return (time.process_time() - s0) / n


if __name__ == "__main__":
    for N in (64, 128, 256, 512, 1024):
        for P in (100, 1000):
            for both in (False, True):
                for rows in (False, True):
                    s = torch.randn(N, P, requires_grad=True)
                    t = torch.randn(N, P)
                    c = run(official, s, t, both, rows, 1)
                    c = run(official, s, t, both, rows, 2)
                    n = max(1, int(0.02 / c))
                    m = max(1, int(0.02 / run(ours, s, t, both, rows, 3)))
                    rs, o = [], []
                    for r in range(7 if c < 0.3 else 3):
                        a = run(official, s, t, both, rows, n)
                        b = run(ours, s, t, both, rows, m)
                        rs.append(a / b)
                        o.append(b)
                    print(
                        N,
                        P,
                        "both" if both else "intra",
                        "rows" if rows else "raw",
                        "%.2f ms ours %.3f ms" % (c * 1e3, statistics.median(o) * 1e3),
                        "ratio %.1f [%.1f-%.1f]" % (statistics.median(rs), min(rs), max(rs)),
                        flush=True,
                    )
