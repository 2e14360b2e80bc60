"""The driver for QEMU (machine type microvm, KVM or software emulation). No other package knows of QEMU.

vmm       QemuVmm: the driver                 accelerator  KVM or TCG, by a real trial
vm        QemuVm: one running machine         machine      the command line, and all that depends on the host
template  booted machines kept on disk        process      QEMU as a process: sockets, user, namespace, end
record    what a VM's directory remembers     qmp          the monitor protocol
overlay   a VM's own disk over a shared base  answers      the shapes of what it answers
"""

from mags.host.vmm.qemu.vmm import QemuVmm

__all__ = ["QemuVmm"]
