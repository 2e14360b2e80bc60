"""Living VMs are found among all that ever were, workspaces by their VM and by their deletion.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_index("ix_vms_host_id_active", table_name="vms")
    op.create_index("ix_vms_active_host_id", "vms", ["active", "host_id"], unique=False)
    op.create_index("ix_workspaces_vm_id", "workspaces", ["vm_id"], unique=False)
    op.create_index("ix_workspaces_deleted_ms", "workspaces", ["deleted_ms"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_workspaces_deleted_ms", table_name="workspaces")
    op.drop_index("ix_workspaces_vm_id", table_name="workspaces")
    op.drop_index("ix_vms_active_host_id", table_name="vms")
    op.create_index("ix_vms_host_id_active", "vms", ["host_id", "active"], unique=False)
