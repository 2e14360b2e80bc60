"""Workspaces know the image that their files lie over.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("workspaces", schema=None) as batch_op:
        batch_op.add_column(sa.Column("image", sa.String(length=255), nullable=True))
    op.execute(
        "UPDATE workspaces SET image = (SELECT vms.image FROM vms WHERE vms.workspace_id = workspaces.id"
        " ORDER BY vms.created_ms DESC LIMIT 1)"
    )


def downgrade() -> None:
    with op.batch_alter_table("workspaces", schema=None) as batch_op:
        batch_op.drop_column("image")
