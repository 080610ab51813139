"""The NIC's ledger from sysfs, /proc and libvirt's files, in a machine made of files; the real ones: tests/hwlab."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import sysfs
from mecexporter.sources.sysfs import SysfsPaths, SysfsSource
from mecexporter.state.sriov import Held, Nic
from mecexporter.state.world import Settings, empty_world
from tests.hwlab import FIXTURES
from tests.hwlab.manifest import unpack
from tests.sources.machine import PF, VFS, Machine

if TYPE_CHECKING:
    from mecexporter.state.sriov import Vf

GUEST = "a11ce000-0000-4000-8000-000000000001"


@pytest.fixture(name="machine")
def a_machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(name="source")
def a_source(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> SysfsSource:
    monkeypatch.setattr(sysfs, "_REST", 0.0)
    return SysfsSource(SysfsPaths(sysfs=machine.sysfs, proc=machine.proc, libvirt=machine.libvirt), 15)


async def read(source: SysfsSource) -> Nic:
    return await source.read(empty_world(0.0, "h", Settings()))


async def first(source: SysfsSource) -> Vf:
    return (await read(source)).pfs[0].vfs[0]


def give(machine: Machine, vf: str = VFS[0]) -> None:
    machine.bind(vf, "vfio-pci")


async def test_a_pf_and_its_vfs(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    machine.device("0000:00:1f.2", kind="0x010601")
    machine.netdev(VFS[1], "enp1s16v1")
    nic = await read(source)
    (pf,) = nic.pfs
    assert (pf.address, pf.driver, pf.device, pf.capacity, pf.configured) == (PF, "igb", "eth0", 7, 4)
    assert (pf.vendor, pf.product, pf.numa_node, pf.speed, pf.held) == ("0x8086", "0x10c9", None, None, Held.NO)
    assert [(vf.index, vf.address, vf.driver, vf.iommu_group) for vf in pf.vfs] == [
        (n, VFS[n], "igbvf", 10 + n) for n in range(4)
    ]
    assert [vf.devices for vf in pf.vfs] == [(), ("enp1s16v1",), (), ()]
    assert nic.addresses == {PF, *VFS, "0000:00:1f.2"}


async def test_vfs_are_in_the_order_of_their_numbers(machine: Machine, source: SysfsSource) -> None:
    machine.pf(vfs=tuple(f"0000:01:{n:02x}.0" for n in range(1, 13)), total=63)
    assert [vf.index for vf in (await read(source)).pfs[0].vfs] == list(range(12))


async def test_numa_node_and_speed(machine: Machine, source: SysfsSource) -> None:
    path = machine.pf()
    machine.write(path / "numa_node", "1\n")
    machine.write(path / "net/eth0/speed", "100000\n")
    (pf,) = (await read(source)).pfs
    assert (pf.numa_node, pf.speed) == (1, 100_000_000_000)
    machine.write(path / "net/eth0/speed", "-1\n")
    assert (await read(source)).pfs[0].speed is None, "no link"


async def test_a_gpu_with_vfs_is_no_nic_but_its_functions_are_there(machine: Machine, source: SysfsSource) -> None:
    machine.pf("0000:65:00.0", vfs=("0000:65:00.4",))
    machine.write(machine.pci / "0000:65:00.0/class", "0x030200\n")
    nic = await read(source)
    assert nic.pfs == ()
    assert nic.addresses == {"0000:65:00.0", "0000:65:00.4"}


async def test_a_host_without_pci(machine: Machine, source: SysfsSource) -> None:
    shutil.rmtree(machine.sysfs / "bus")
    assert await read(source) == Nic(pfs=(), addresses=frozenset(), processes_seen=True)


async def test_no_sysfs_at_all(machine: Machine, source: SysfsSource) -> None:
    shutil.rmtree(machine.sysfs)
    with pytest.raises(SourceError) as caught:
        await read(source)
    assert (caught.value.reason, caught.value.why) == (Reason.MISSING, f"no {machine.sysfs}")


async def test_files_that_fail_when_they_are_read(machine: Machine, source: SysfsSource) -> None:
    path = machine.pf()
    (path / "net/eth0/phys_port_name").mkdir()  # as a read that fails: EISDIR for EOPNOTSUPP
    (path / "net/eth0/speed").mkdir()
    (path / "sriov_numvfs").unlink()
    (path / "sriov_numvfs").mkdir()
    (pf,) = (await read(source)).pfs
    assert (pf.device, pf.speed, pf.configured) == ("eth0", None, 4)


async def test_representors_and_uplink_of_switchdev_mode(machine: Machine, source: SysfsSource) -> None:
    path = machine.pf(driver="mlx5_core", net="ens1f0np0")
    for name, port, switch in (
        ("ens1f0np0", "p0", "e4"),
        ("ens1f0npf0vf0", "pf0vf0", "e4"),
        ("eth7", "c1pf0vf10", "e4"),
        ("of_the_other_port", "pf1vf1", "e4"),
        ("of_another_card", "pf0vf2", "77"),
    ):
        if name.startswith("ens"):
            machine.write(path / "net" / name / "phys_port_name", f"{port}\n")
            machine.write(path / "net" / name / "phys_switch_id", f"{switch}\n")
        machine.write(machine.sysfs / "class/net" / name / "phys_port_name", f"{port}\n")
        machine.write(machine.sysfs / "class/net" / name / "phys_switch_id", f"{switch}\n")
    machine.link(path / "net/ens1f0np0/master", "../../../../../virtual/net/bond0")
    (pf,) = (await read(source)).pfs
    assert (pf.devices, dict(pf.representors), pf.master) == (("ens1f0np0",), {0: "ens1f0npf0vf0", 10: "eth7"}, "bond0")


async def test_a_guest_that_has_a_vf(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    machine.process(4711, "/dev/vfio/vfio", "/dev/vfio/10", guest=GUEST)
    vf = await first(source)
    assert (vf.held, vf.holder, vf.by_host) == (Held.YES, GUEST, False)


async def test_one_that_uses_iommufd(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    (machine.pci / VFS[0] / "vfio-dev/vfio3").mkdir(parents=True)
    machine.process(4711, "/dev/vfio/devices/vfio3", guest=GUEST)
    assert (await first(source)).held is Held.YES


async def test_one_without_an_iommu(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    machine.process(4711, "/dev/vfio/noiommu-10")
    vf = await first(source)
    assert (vf.held, vf.holder) == (Held.YES, "")


async def test_bound_and_open_in_no_process_is_free(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    machine.process(4711, "/dev/vfio/vfio", "/dev/vfio/11")
    assert (await first(source)).held is Held.NO


async def test_a_guest_that_ends_and_one_that_comes(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    process = machine.process(4711, "/dev/vfio/10", guest=GUEST)
    assert (await first(source)).held is Held.YES
    shutil.rmtree(process)
    assert (await first(source)).held is Held.NO
    machine.process(4712, "/dev/null", "/dev/vfio/10", guest="another")
    assert (await first(source)).holder == "another"


async def test_the_search_through_all_processes_rests(
    machine: Machine, source: SysfsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysfs, "_REST", 1e9)
    searches: list[Path] = []
    search = sysfs._search

    def counted(proc: Path) -> Any:
        searches.append(proc)
        return search(proc)

    monkeypatch.setattr(sysfs, "_search", counted)
    machine.pf()
    assert (await first(source)).held is Held.NO
    assert not searches, "nothing is bound to vfio-pci: nobody to look for"
    give(machine)
    machine.process(4711, "/dev/vfio/10")
    for _ in range(3):
        assert (await first(source)).held is Held.YES
    give(machine, VFS[1])
    await read(source)
    assert len(searches) == 1


async def test_processes_of_the_host_that_are_hidden(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    (machine.proc / "2/comm").write_text("postgres\n")  # another PID namespace
    machine.process(4711, "/dev/null")
    nic = await read(source)
    assert (nic.processes_seen, nic.pfs[0].vfs[0].held) == (False, Held.BOUND)


async def test_where_all_are_bound_beforehand_that_tells_nothing(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    (machine.proc / "2/comm").unlink()
    for vf in VFS:
        give(machine, vf)
    machine.domain("instance-00000001", GUEST, VFS[1])
    vfs = (await read(source)).pfs[0].vfs
    assert [vf.held for vf in vfs] == [Held.UNSEEN, Held.YES, Held.UNSEEN, Held.UNSEEN]
    machine.write(machine.proc / "2/comm", "kthreadd\n")
    vfs = (await read(source)).pfs[0].vfs
    assert [vf.held for vf in vfs] == [Held.NO, Held.YES, Held.NO, Held.NO]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights")
@pytest.mark.root
async def test_processes_of_the_host_that_this_user_may_not_look_at(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    give(machine)
    machine.process(4711, "/dev/vfio/10")
    for path in (machine.sysfs.parent, *machine.sysfs.parent.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o711)
    (machine.proc / "4711/fd").chmod(0o500)
    # In this thread: the rights of others are not touched.
    os.seteuid(65534)
    try:
        nic = source._read()
    finally:
        os.seteuid(0)
    assert (nic.processes_seen, nic.pfs[0].vfs[0].held) == (False, Held.BOUND)


async def test_libvirts_running_domains_tell_too(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    (machine.proc / "2/comm").unlink()
    give(machine)
    give(machine, VFS[1])
    machine.domain("instance-00000001", GUEST, VFS[0])
    machine.write(machine.libvirt / "torn.xml", "<domstatus><domain>")
    machine.write(machine.libvirt / "odd.xml", "<d><hostdev><source><address domain='x'/></source></hostdev></d>")
    vfs = (await read(source)).pfs[0].vfs
    assert [(vf.held, vf.holder) for vf in vfs[:3]] == [(Held.YES, GUEST), (Held.BOUND, ""), (Held.NO, "")]


async def test_a_vf_that_the_host_uses(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    machine.link(machine.netdev(VFS[0], "v0") / "master", "../../../../../virtual/net/br0")
    machine.netdev(VFS[1], "v1")
    give(machine, VFS[2])
    machine.process(50, "/dev/vfio/12", comm="ovs-vswitchd")
    vfs = (await read(source)).pfs[0].vfs
    assert [(vf.by_host, vf.held) for vf in vfs] == [
        (True, Held.NO),
        (False, Held.NO),
        (True, Held.NO),
        (False, Held.NO),
    ]


async def test_macvtap_and_vdpa_hide_their_guests(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    machine.link(machine.netdev(VFS[0], "v0") / "upper_macvtap0", "../../../../../virtual/net/macvtap0")
    (machine.pci / VFS[1] / "vdpa0").mkdir()
    vfs = (await read(source)).pfs[0].vfs
    assert [vf.held for vf in vfs] == [Held.UNSEEN, Held.UNSEEN, Held.NO, Held.NO]


async def test_a_pf_that_a_guest_has_as_a_whole(machine: Machine, source: SysfsSource) -> None:
    path = machine.pf(vfs=())
    shutil.rmtree(path / "net")
    machine.link(path / "iommu_group", "../../../kernel/iommu_groups/9")
    give(machine, PF)
    machine.process(4711, "/dev/vfio/9", guest=GUEST)
    (pf,) = (await read(source)).pfs
    assert (pf.held, pf.holder, pf.device, pf.vfs) == (Held.YES, GUEST, "", ())


async def test_vfs_and_pfs_that_come_and_go(machine: Machine, source: SysfsSource) -> None:
    path = machine.pf(vfs=())
    assert (await read(source)).pfs[0].configured == 0
    shutil.rmtree(path)
    machine.pf()
    assert len((await read(source)).pfs[0].vfs) == 4
    shutil.rmtree(machine.pci / PF)
    for vf in VFS:
        shutil.rmtree(machine.pci / vf)
    assert (await read(source)).pfs == ()


async def test_a_vf_that_goes_while_it_is_read(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    shutil.rmtree(machine.pci / VFS[3])  # its link virtfn3 is still there
    vf = (await read(source)).pfs[0].vfs[3]
    assert (vf.address, vf.driver, vf.held) == (VFS[3], None, Held.NO)


async def test_a_read_that_hangs_is_not_begun_again(source: SysfsSource) -> None:
    source._reads.running = asyncio.get_running_loop().create_future()
    with pytest.raises(SourceError, match="still hangs") as caught:
        await read(source)
    assert caught.value.reason is Reason.TIMEOUT
    source._reads.running.cancel()


# What real machines showed (tests/fixtures/hw).


async def recorded(name: str, directory: Path) -> Nic:
    unpack(FIXTURES / f"{name}.manifest", directory)
    paths = SysfsPaths(sysfs=directory / "sys", proc=directory / "proc", libvirt=directory / "none")
    return await read(SysfsSource(paths, 15))


@pytest.mark.parametrize(
    ("name", "drivers", "held"),
    [
        ("igb-no-vfs", [], []),
        ("igb-vf-bound", ["vfio-pci", "igbvf", "igbvf", "igbvf"], [Held.NO] * 4),
        ("igb-vf-held", ["vfio-pci", "igbvf", "igbvf", "igbvf"], [Held.YES, Held.NO, Held.NO, Held.NO]),
        ("igb-vf-unbound", [None, "igbvf", "igbvf", "igbvf"], [Held.NO] * 4),
        ("igb-vf-back", ["igbvf"] * 4, [Held.NO] * 4),
    ],
)
async def test_igb(name: str, drivers: list[str | None], held: list[Held], tmp_path: Path) -> None:
    (pf,) = (await recorded(name, tmp_path)).pfs
    assert (pf.address, pf.driver, pf.device, pf.capacity, pf.configured) == (PF, "igb", "pf0", 7, len(drivers))
    assert [vf.address for vf in pf.vfs] == list(VFS[: len(drivers)])
    assert [vf.driver for vf in pf.vfs] == drivers
    assert [vf.held for vf in pf.vfs] == held
    assert all(vf.iommu_group is not None for vf in pf.vfs)


async def test_igb_unplugged(tmp_path: Path) -> None:
    assert (await recorded("igb-unplugged", tmp_path)).pfs == ()


async def test_a_smart_nic_in_switchdev_mode(tmp_path: Path) -> None:
    first, second = (await recorded("connectx-switchdev", tmp_path)).pfs
    assert [(pf.address, pf.device, pf.master, pf.configured) for pf in (first, second)] == [
        ("0000:03:00.0", "enp3s0f0np0", "bond0", 8),
        ("0000:03:00.1", "enp3s0f1np1", "bond0", 8),
    ]
    assert dict(first.representors) == {n: f"enp3s0f0r{n}" for n in range(8)}
    assert dict(second.representors) == {n: f"enp3s0f1r{n}" for n in range(8)}
    assert [vf.held for vf in first.vfs[:4]] == [Held.YES, Held.NO, Held.UNSEEN, Held.NO]
    assert first.vfs[0].holder == "5f0c7a1e-8d53-4b43-9b0e-0c6a52d1f7aa"
    assert [vf.by_host for vf in first.vfs] == [n == 4 for n in range(8)]
    assert {vf.held for vf in second.vfs} == {Held.NO}


async def test_what_nobody_touched_is_equal(machine: Machine, source: SysfsSource) -> None:
    machine.pf()
    assert await read(source) == await read(source) == replace(await read(source))
