"""CP-SAT as judge: is there a place for a VM, if nobody moves, or if some do? And how many vCPUs could be on one node
with their memory, had everything been known? Runs by the Python of the peers' virtual environment, a line of JSON a
question.

It has the definition of docs/placement.md for machines of one kind of CPU and one thread a core, in numbers:

``cpus`` and ``mib`` by node; ``vms`` with ``nodes`` of ``[vCPUs, MiB]`` (guest nodes; one for a guest that sees none),
``dedicated``, ``movable``, and ``homes``: of each guest node ``{"memory": {node: MiB}, "vcpus": {node: vCPUs}}``.
"""

# mypy: ignore-errors

from __future__ import annotations

import json
import sys
from itertools import combinations

from ortools.sat.python import cp_model

SECONDS = 20.0


class Model:
    """VMs that stay as they are, those that may be moved to one node each, and one that comes."""

    def __init__(self, question):
        self.model = cp_model.CpModel()
        self.question = question
        self.nodes = range(len(question["cpus"]))
        self.memory = {node: [] for node in self.nodes}
        self.dedicated = {node: [] for node in self.nodes}
        self.shared = {node: [] for node in self.nodes}

    def stay(self, vm, factor=1):
        for home in vm["homes"]:
            for node, mib in home["memory"].items():
                self.memory[int(node)].append(mib * factor)
            for node, vcpus in home["vcpus"].items():
                (self.dedicated if vm["dedicated"] else self.shared)[int(node)].append(vcpus * factor)

    def may_move(self, vm):
        """Where it is, or whole on any node; or a VM on several nodes on as many others, by rank."""
        stays = self.model.new_bool_var("")
        self.stay(vm, stays)
        wheres = []
        for homes in destinations(vm, len(self.nodes)):
            goes = self.model.new_bool_var("")
            cost = 0
            for (vcpus, mib), home, old in zip(vm["nodes"], homes, vm["homes"], strict=True):
                self.memory[home].append(mib * goes)
                (self.dedicated if vm["dedicated"] else self.shared)[home].append(vcpus * goes)
                cost += mib if [str(home)] != list(old["memory"]) else 0
            wheres.append((goes, cost))
        self.model.add_exactly_one([stays, *(goes for goes, _ in wheres)])
        return wheres

    def come(self, vm):
        """Memory of a guest node that is given on one node, else anywhere; vCPUs anywhere."""
        if vm["given"]:
            for _, mib in vm["nodes"]:
                homes = [self.model.new_bool_var("") for _ in self.nodes]
                self.model.add_exactly_one(homes)
                for node in self.nodes:
                    self.memory[node].append(mib * homes[node])
        else:
            total = sum(mib for _, mib in vm["nodes"])
            shares = [self.model.new_int_var(0, total, "") for _ in self.nodes]
            self.model.add(sum(shares) == total)
            for node in self.nodes:
                self.memory[node].append(shares[node])
        vcpus = sum(count for count, _ in vm["nodes"])
        seats = [self.model.new_int_var(0, vcpus, "") for _ in self.nodes]
        self.model.add(sum(seats) == vcpus)
        for node in self.nodes:
            (self.dedicated if vm["dedicated"] else self.shared)[node].append(seats[node])

    def limit(self):
        """What every node holds: dedicated CPUs are gone for the others, who fit the rest."""
        for node in self.nodes:
            self.model.add(sum(self.memory[node]) <= self.question["mib"][node])
            left = self.question["cpus"][node] - sum(self.dedicated[node])
            self.model.add(left >= 0)
            self.model.add(sum(self.shared[node]) <= self.question["overcommit"] * left)

    def solve(self, seconds=SECONDS):
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = seconds
        solver.parameters.num_workers = 2
        return solver, solver.status_name(solver.solve(self.model))


def destinations(vm, nodes):
    old = sorted({int(node) for home in vm["homes"] for node in home["memory"]})
    for node in range(nodes):
        yield [node] * len(vm["nodes"])
    if len(old) > 1:
        for some in combinations(range(nodes), len(old)):
            there = dict(zip(old, some, strict=True))
            yield [there[int(next(iter(home["memory"])))] for home in vm["homes"]]


def possible(question):
    """``OPTIMAL`` or ``FEASIBLE``: there is a place. ``INFEASIBLE``: there is none. ``UNKNOWN``: no answer in time."""
    model = Model(question)
    moves = []
    for vm in question["vms"]:
        if question["moves"] and vm["movable"]:
            moves += model.may_move(vm)
        else:
            model.stay(vm)
    model.come(question["request"])
    model.limit()
    if moves:
        model.model.add(sum(goes for goes, _ in moves) <= question["moves"])
        model.model.add(sum(goes * cost for goes, cost in moves) <= question["moved_mib"])
    return {"status": model.solve()[1]}


def most_local(question):
    """The most vCPUs in VMs that are whole on one node; the others only have to fit the whole machine."""
    model = Model(question)
    gain = []
    for vm in question["vms"]:
        vcpus, mib = (sum(part) for part in zip(*vm["nodes"], strict=True))
        homes = [model.model.new_bool_var("") for _ in model.nodes]
        model.model.add_at_most_one(homes)
        for node in model.nodes:
            model.memory[node].append(mib * homes[node])
            (model.dedicated if vm["dedicated"] else model.shared)[node].append(vcpus * homes[node])
            gain.append(vcpus * homes[node])
    model.limit()
    model.model.maximize(sum(gain))
    solver, status = model.solve(3 * SECONDS)
    return {"status": status, "best": round(solver.objective_value), "bound": round(solver.best_objective_bound)}


def main():
    for line in sys.stdin:
        question = json.loads(line)
        answer = most_local(question) if question["ask"] == "most_local" else possible(question)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
