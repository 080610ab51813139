/* Stands for the QEMU process of a virtual machine: it has the right name and arguments, keeps open what it was started
 * with, and does nothing else. */
#include <unistd.h>

int main(void)
{
	for (;;)
		pause();
}
