"""What any long-running node needs: event bus, input loop, timers, supervision, log events, plug-ins."""
